"""A thin runtime agent: one worker per container of this host, holds, presence."""

from typing import TYPE_CHECKING

from tests.simulation.bus import Job
from tests.simulation.loop import Future, Process, Steps
from tests.simulation.machine import LedgerEntry, Machine
from tests.simulation.publisher import Publisher
from tests.simulation.store import Entry, Mirror
from tests.simulation.worker import Worker

from labfleet_proto.buckets import container_key
from labfleet_proto.containers import ContainerRecord, Observation, State
from labfleet_proto.errors import NotFoundError, StaleError, UnavailableError
from labfleet_proto.hosts import HostRecord, Lease
from labfleet_proto.ids import ContainerId
from labfleet_proto.placement import HoldAnswer, takes_room
from labfleet_proto.resources import Resources
from labfleet_runtime_agent.core.admission import Holds, used

if TYPE_CHECKING:
    from tests.simulation.world import World

_LEASE_EVERY_S = 5.0
_RECORD_EVERY_S = 2.0
_RETRY_S = 1.0


class Agent:
    def __init__(self, world: "World", machine: Machine, process: Process) -> None:
        self.loop, self.bus, self.store = world.loop, world.bus, world.store
        self.bugs = world.bugs
        self.machine = machine
        self.process = process
        self.workers: dict[ContainerId, Worker] = {}
        self.holds = Holds()
        self._life = world.lives[process.name]
        self._records = world.mirror(process, "containers")
        self._beginning: dict[ContainerId, Future] = {}
        self._publisher = Publisher(
            self,
            self.store.buckets["observed"].put,
            in_order="observations out of order" not in self.bugs,
        )
        process.spawn(self._run())

    def mirrors(self) -> list[Mirror]:
        return [self._records]

    def note(self, what: str) -> None:
        self.loop.note(self.process.name, what)

    # -- life

    def _run(self) -> Steps:
        """Take up the ledger, then the records, then work."""
        yield self._records.ready
        for entry in list(self.machine.ledger.values()):
            self._begin(entry)
        for record in self._records.values():
            self.offer(record)
        for worker in list(self.workers.values()):
            self.forget_if_gone(worker)
        self._records.listen(self._on_change)
        for kind, handler in (("hold", self._hold), ("reconcile", self._reconcile)):
            self.bus.serve(self.process, f"{kind}.{self.machine.name}", handler)
        self.process.spawn(self._renew())
        yield from self._publish_host()

    def _on_change(self, _key: str, entry: Entry | None) -> None:
        if entry is not None:
            self.offer(entry.value)
        else:
            for worker in list(self.workers.values()):
                self.forget_if_gone(worker)

    def forget_if_gone(self, worker: Worker) -> None:
        """Once the record of a removed container is gone, so is its entry in the ledger."""
        record = worker.record
        is_recorded = container_key(record.tenant, record.id) in self._records.entries
        is_removed = worker.seen is not None and worker.seen.state is State.REMOVED
        if is_removed and not is_recorded and worker.has_ended:
            self.process.spawn(self._forget(worker))

    def _forget(self, worker: Worker) -> Steps:
        """A record that the mirror lacks may be too new for it: ask the store itself."""
        record = worker.record
        if "agent believes an absence" not in self.bugs:
            while (yield from self._stored(record)) is not None:
                yield _RETRY_S
        self.workers.pop(record.id, None)
        self.machine.ledger.pop(record.id, None)

    def _stored(self, record: ContainerRecord) -> Steps:
        """The record as the store has it now."""
        key = container_key(record.tenant, record.id)
        while True:
            try:
                return (yield from self.store.call(self.store.buckets["containers"].get, key))
            except UnavailableError:
                yield _RETRY_S

    def offer(self, record: ContainerRecord) -> Future:
        """Give a record to its worker, making one for a new container."""
        done = Future(self.loop)
        worker = self.workers.get(record.id)
        if record.assignment.host != self.machine.name:
            done.set()
        elif worker is not None:
            worker.offer(record)
            done.set(worker)
        elif "late records begin anew" in self.bugs:
            done.set(self._begin(LedgerEntry(record, None)))
        else:
            if record.id not in self._beginning:
                self._beginning[record.id] = self.process.spawn(self._begin_stored(record))
            self._beginning[record.id].then(lambda begun: begun.value and begun.value.offer(record))
            return self._beginning[record.id]
        return done

    def _begin_stored(self, record: ContainerRecord) -> Steps:
        """Begin only with what the store says now: a late message may tell of a removed container."""
        entry = yield from self._stored(record)
        del self._beginning[record.id]
        return self._begin(LedgerEntry(entry.value, None)) if entry is not None else None

    def _begin(self, entry: LedgerEntry) -> Worker:
        worker = Worker(self, entry)
        self.workers[entry.record.id] = worker
        self.holds.arrived(entry.record.id)
        self.process.spawn(worker.run())
        return worker

    def publish(self, seen: Observation) -> None:
        self._publisher.observe(seen)

    # -- capacity

    def in_use(self) -> Resources:
        seen = {each.record.id: each.seen for each in self.workers.values() if each.seen}
        here = [
            each.record
            for each in self.workers.values()
            if each.seen is None or each.seen.state is not State.REMOVED
        ]
        return used(here, seen)

    def free(self) -> Resources:
        return self.machine.capacity - self.in_use() - self.holds.total()

    def promised(self) -> Resources:
        """What runs and what was never started: neither may be refused its room."""
        total = Resources()
        for worker in self.workers.values():
            is_first = worker.seen is None or worker.seen.state < State.EXITED
            if is_first and takes_room(worker.record, worker.seen):
                total += worker.record.spec.resources()
        return total

    @property
    def has_kept_its_memory(self) -> bool:
        """Whether no hold was ever lost in a crash."""
        return self._life == 1

    # -- jobs

    def _hold(self, job: Job) -> Steps:
        container, resources = job.args
        yield 0
        if container in self.workers:
            return HoldAnswer(is_granted=True, free=self.free())
        free = self.machine.capacity - self.in_use()
        return self.holds.ask(container, resources, free, self.loop.now)

    def _reconcile(self, job: Job) -> Steps:
        record: ContainerRecord = job.args
        worker = yield self.offer(record)
        if worker is None:
            raise NotFoundError(f"no such container: {record.id}")
        is_old = worker.record.generation > record.generation
        if is_old and "no generation check" not in self.bugs:
            raise StaleError(f"container {record.id}: generation {record.generation} is old")
        return (yield worker.settled(record.generation))

    # -- presence

    def _renew(self) -> Steps:
        put = self.store.buckets["leases"].put
        lease = Lease(host=self.machine.name, epoch=self.machine.boot, boot_id="")
        while True:
            try:
                yield from self.store.call(put, self.machine.name, lease)
            except UnavailableError:
                yield _RETRY_S
                continue
            yield _LEASE_EVERY_S

    def _publish_host(self) -> Steps:
        put = self.store.buckets["hosts"].put
        name, capacity = self.machine.name, self.machine.capacity
        while True:
            if "lapsed holds stay" not in self.bugs:
                self.holds.lapse(self.loop.now)
            record = HostRecord(
                id=name,
                address="10.0.0.1",
                data_port=1,
                capacity=capacity,
                free=self.free(),
                cores=1,
                total_memory_bytes=capacity.memory_bytes,
                boot_id=str(self.machine.boot),
                updated_at_ns=self.loop.now_ns(),
            )
            try:
                yield from self.store.call(put, name, record)
            except UnavailableError:
                self.note("host record waits")
            yield _RECORD_EVERY_S
