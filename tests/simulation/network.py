"""A thin network service of one host: addresses by create-only writes, taken back when over."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.bus import Job
from tests.simulation.loop import Lock, Process, Signal, Steps, within
from tests.simulation.machine import Machine, Namespace
from tests.simulation.store import Entry, ExistsError, Mirror

from labfleet_network.core.addresses import lowest_free
from labfleet_network.core.wanted import is_over, stale_addresses
from labfleet_proto.buckets import address_key, container_key, observed_key
from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.errors import LabfleetError, StaleError, UnavailableError
from labfleet_proto.ids import OPERATORS, ContainerId, NetworkId
from labfleet_proto.networks import AddressRecord, NetworkRecord

if TYPE_CHECKING:
    from tests.simulation.world import World

_PASS_EVERY_S = 5.0
_SETTLE_S = 0.02
_KERNEL_S = 0.01

NETWORK = NetworkRecord(
    id=NetworkId("net"),
    tenant=OPERATORS,
    name="bridge",
    vni=1,
    subnet="10.100.0.0/24",
    gateway="10.100.0.1",
    created_at_ns=0,
)


@dataclass(frozen=True)
class Allocated:
    """What one attempt of a container has; `revision` of its address, None if unknown."""

    attempt: int
    address: str
    revision: int | None


class HostNetwork:
    def __init__(self, world: "World", machine: Machine, process: Process) -> None:
        self.loop, self.store, self.bugs = world.loop, world.store, world.bugs
        self.machine, self.process = machine, process
        self._records = world.mirror(process, "containers")
        self._observed = world.mirror(process, "observed")
        self._addresses = world.mirror(process, "addresses")
        self._bus = world.bus
        self._allocated: dict[ContainerId, Allocated] = {}
        self._newest_s: dict[ContainerId, float] = {}
        """When the newest job that was served for a container was sent: an earlier one is late."""
        self._locks: dict[ContainerId, Lock] = {}
        process.spawn(self._run())

    def mirrors(self) -> list[Mirror]:
        return [self._records, self._observed, self._addresses]

    def _run(self) -> Steps:
        for mirror in self.mirrors():
            yield mirror.ready
        for entry in self._addresses.entries.values():
            record: AddressRecord = entry.value
            if record.host == self.machine.name and record.container in self.machine.spaces:
                known = Allocated(record.attempt, record.address, entry.revision)
                self._allocated[record.container] = known
        for kind, handler in (("allocate", self._allocate), ("release", self._release_job)):
            self._bus.serve(self.process, f"{kind}.{self.machine.name}", handler)
        moved = Signal(self.loop)
        for mirror in self.mirrors():
            mirror.listen(lambda _key, _entry: moved.set())
        while True:
            moved.clear()
            try:
                yield from self._release_stale()
            except UnavailableError:
                yield 1.0
            try:
                yield from within(self.loop, moved.wait(), _PASS_EVERY_S, "a change")
                yield _SETTLE_S
            except UnavailableError:
                continue

    # -- jobs

    def _lock(self, container: ContainerId) -> Lock:
        return self._locks.setdefault(container, Lock(self.loop))

    def _refuse_late(self, job: Job, container: ContainerId) -> None:
        """Agent and network share a clock: a job sent before a newer one was served is refused."""
        if "late network jobs are served" in self.bugs:
            return
        newest = self._newest_s.get(container, self.process.born_s)
        if job.sent_s < newest:
            raise UnavailableError(f"{job.kind} of {container} is late")
        self._newest_s[container] = job.sent_s

    def _allocate(self, job: Job) -> Steps:
        """Safe to repeat: by container and attempt."""
        record, attempt = job.args
        lock = self._lock(record.id)
        yield from lock.take()
        try:
            self._refuse_late(job, record.id)
            known = self._allocated.get(record.id)
            if known is not None and known.attempt == attempt and record.id in self.machine.spaces:
                return known.address
            if known is not None:
                yield from self._release(record.id, attempt)
            try:
                return (yield from self._make(record, attempt))
            except LabfleetError:
                self.machine.unplug(record.id, "allocation failed")
                raise
        finally:
            lock.free()

    def _make(self, record: ContainerRecord, attempt: int) -> Steps:
        allocated = yield from self._claim(record, attempt)
        self._allocated[record.id] = allocated
        ports = frozenset(port.host_port or 0 for port in record.spec.ports)
        self.machine.plug(record.id, Namespace(attempt, allocated.address, ports))
        yield _KERNEL_S
        return allocated.address

    def _claim(self, record: ContainerRecord, attempt: int) -> Steps:
        bucket = self.store.buckets["addresses"]
        taken = {each.address for each in self._addresses.values()}
        while True:
            address = lowest_free(NETWORK, taken)
            value = AddressRecord(
                network=NETWORK.id,
                address=address,
                mac="",
                host=self.machine.name,
                vtep="",
                tenant=record.tenant,
                container=record.id,
                attempt=attempt,
                names=(record.name,),
            )
            try:
                key = address_key(NETWORK.id, address)
                revision = yield from self.store.call(bucket.create, key, value)
            except ExistsError:
                taken.add(address)
                continue
            return Allocated(attempt, address, revision)

    def _release_job(self, job: Job) -> Steps:
        record, attempt = job.args
        lock = self._lock(record.id)
        yield from lock.take()
        try:
            self._refuse_late(job, record.id)
            yield from self._release(record.id, attempt)
        finally:
            lock.free()

    # -- release

    def _release(self, container: ContainerId, attempt: int) -> Steps:
        known = self._allocated.get(container)
        if known is not None and known.attempt > attempt:
            return
        self.machine.unplug(container, f"release of attempt {attempt}")
        yield _KERNEL_S
        mine = {
            key: entry.revision
            for key, entry in self._addresses.entries.items()
            if entry.value.container == container
            and entry.value.host == self.machine.name
            and entry.value.attempt <= attempt
        }
        if known is not None and known.revision is not None:
            mine[address_key(NETWORK.id, known.address)] = known.revision
        for key, revision in mine.items():
            yield from self._drop(key, revision)
        self._allocated.pop(container, None)

    def _drop(self, key: str, revision: int) -> Steps:
        """Delete at the revision that was ours: meanwhile it may be another host's."""
        bucket = self.store.buckets["addresses"]
        if "addresses are deleted unseen" in self.bugs:
            yield from self.store.call(bucket.delete, key)
            return
        try:
            yield from self.store.call(bucket.delete, key, revision)
        except StaleError:
            return

    def _release_stale(self) -> Steps:
        addresses = self._addresses.as_dict()
        seen: dict[ContainerId, Observation] = {each.id: each for each in self._observed.values()}
        records = self._records.as_dict()
        for key in stale_addresses(addresses, records, seen, self.machine.name):
            address: AddressRecord = addresses[key]
            if not (yield from self._is_over(address)):
                continue
            lock = self._lock(address.container)
            yield from lock.take()
            try:
                yield from self._release(address.container, address.attempt)
            finally:
                lock.free()

        yield from self._release_doubles()

    def _release_doubles(self) -> Steps:
        """Take back addresses that a claim left whose answer, or whose claimer, was lost."""
        if "a second address stays" in self.bugs:
            return
        for key, entry in list(self._addresses.entries.items()):
            address: AddressRecord = entry.value
            known = self._allocated.get(address.container)
            is_busy = self._lock(address.container).is_held
            if address.host != self.machine.name or known is None or is_busy:
                continue
            if known.attempt >= address.attempt and known.address != address.address:
                yield from self._drop(key, entry.revision)

    def _is_over(self, address: AddressRecord) -> Steps:
        """A record that the mirror lacks may be too new for it: ask the store itself."""
        key = container_key(address.tenant, address.container)
        record: ContainerRecord | None = self._records.get(key)
        if record is None and "network believes an absence" not in self.bugs:
            containers = self.store.buckets["containers"]
            entry: Entry | None = yield from self.store.call(containers.get, key)
            return entry is None
        seen = self._observed.get(observed_key(self.machine.name, address.container))
        return is_over(record, seen, address.attempt)
