"""The fleet as the api sees it: mirrors to read from, hosts to ask, records to change."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from labfleet_api.core import lookup
from labfleet_api.settings import Settings
from labfleet_chassis.caller import caller_tenant
from labfleet_chassis.credentials import Credentials
from labfleet_chassis.data_port import ByteStream, dial
from labfleet_chassis.mirror import Mirror
from labfleet_chassis.service import Chassis
from labfleet_chassis.store import Bucket, Entry
from labfleet_proto import buckets
from labfleet_proto.buckets import container_key, observed_key
from labfleet_proto.containers import ContainerRecord, NameRecord, Observation, State, VolumeRecord
from labfleet_proto.errors import ConflictError, NotFoundError, StaleError, UnavailableError
from labfleet_proto.events import FleetEvent
from labfleet_proto.host_policies import HostPolicy
from labfleet_proto.hosts import HostRecord, Lease
from labfleet_proto.ids import ContainerId, HostId, TenantId
from labfleet_proto.image_streams import IMAGE_STORE
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message
from labfleet_proto.networks import NetworkNameRecord, NetworkRecord, SubnetClaim
from labfleet_proto.streams import StreamRequest

A = TypeVar("A", bound=Message)
R = TypeVar("R", bound=Message)

_MOST_TRIES = 5


@dataclass
class Memory:
    """Mirrors and buckets of the fleet's memory."""

    containers: Mirror[ContainerRecord]
    observed: Mirror[Observation]
    hosts: Mirror[HostRecord]
    leases: Mirror[Lease]
    networks: Mirror[NetworkRecord]
    volumes: Mirror[VolumeRecord]
    policies: Mirror[HostPolicy]
    credentials: Credentials
    names: Bucket[NameRecord]
    network_names: Bucket[NetworkNameRecord]
    subnets: Bucket[SubnetClaim]

    @classmethod
    async def open(cls, chassis: Chassis) -> "Memory":
        """Mirror all buckets that matter here."""
        return cls(
            await chassis.mirror(buckets.CONTAINERS),
            await chassis.mirror(buckets.OBSERVED),
            await chassis.mirror(buckets.HOSTS),
            await chassis.mirror(buckets.LEASES),
            await chassis.mirror(buckets.NETWORKS),
            await chassis.mirror(buckets.VOLUMES),
            await chassis.mirror(buckets.HOST_POLICIES),
            await Credentials.open(chassis),
            await chassis.bus.bucket(buckets.NAMES),
            await chassis.bus.bucket(buckets.NETWORK_NAMES),
            await chassis.bus.bucket(buckets.SUBNETS),
        )


@dataclass(eq=False)
class Watch:
    """One container under observation."""

    last: Observation | None
    is_gone: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class Fleet:
    """Everything the routes need."""

    def __init__(self, chassis: Chassis, memory: Memory, settings: Settings) -> None:
        self.chassis = chassis
        self.memory = memory
        self.settings = settings
        self.clock = chassis.clock
        self.bus = chassis.bus
        self._key = bytes.fromhex(settings.data_key.get_secret_value())
        self._watches: dict[ContainerId, set[Watch]] = {}
        self._told: dict[str, Observation] = {}
        """Answers of hosts that the mirror does not show yet, by key of `observed`."""
        memory.observed.listen(self._on_observed)
        memory.containers.listen(self._on_record)

    # -- reading

    @property
    def tenant(self) -> TenantId:
        """Whose request this is; in a loop only within `acting_for` (`labfleet_chassis.caller`)."""
        return caller_tenant()

    def records(self) -> list[ContainerRecord]:
        """The tenant's containers, newest first."""
        own = [each for each in self.memory.containers.values() if each.tenant == self.tenant]
        return sorted(own, key=lambda each: each.created_at_ns, reverse=True)

    def find(self, text: str) -> ContainerRecord:
        """Find a container by id, name or prefix. Raises NotFoundError, InvalidRequestError."""
        own = (each for each in self.memory.containers.values() if each.tenant == self.tenant)
        return lookup.find_container(text, own)

    def networks(self) -> list[NetworkRecord]:
        """The tenant's networks by name."""
        own = [each for each in self.memory.networks.values() if each.tenant == self.tenant]
        return sorted(own, key=lambda each: each.name)

    def seen(self, record: ContainerRecord) -> Observation | None:
        """What its host last said of a container, on the bus or in an answer to us."""
        key = observed_key(record.assignment.host, record.id)
        shown, told = self.memory.observed.get(key), self._told.get(key)
        return told if told is not None else shown

    def told(self, seen: Observation) -> None:
        """Take a host's answer: true at once, before the mirror shows it (read your writes)."""
        key = observed_key(seen.host, seen.id)
        shown = self.memory.observed.get(key)
        is_recorded = container_key(seen.tenant, seen.id) in self.memory.containers.entries
        if is_recorded and (shown is None or _newness(shown) < _newness(seen)):
            self._told[key] = seen
        self._show(seen)

    def is_lost(self, host: HostId) -> bool:
        """Whether the host's lease has run out."""
        age_s = self.memory.leases.age_s(host)
        return self.memory.leases.get(host) is None or age_s > buckets.LEASES.ttl_s

    def host(self, name: HostId) -> HostRecord:
        """The host's record. Raises UnavailableError."""
        record = self.memory.hosts.get(name)
        if record is None or self.is_lost(name):
            raise UnavailableError(f"host {name} does not answer; its containers may still run")
        return record

    # -- hosts

    async def ask(
        self,
        kind: JobKind[A, R],
        args: A,
        record: ContainerRecord,
        timeout_s: float | None = None,
    ) -> R:
        """Send a job to the host of a container.

        Raises what the host raises, UnavailableError; at once when the host is lost.
        """
        self.host(record.assignment.host)
        return await self.bus.call(
            kind,
            args,
            tenant=record.tenant,
            subject=record.id,
            host=record.assignment.host,
            timeout_s=timeout_s,
        )

    def stream(
        self, record: ContainerRecord, request: StreamRequest
    ) -> contextlib.AbstractAsyncContextManager[ByteStream]:
        """Open a byte stream to the host of a container. Raises LabfleetError."""
        return self._dialled(self.host(record.assignment.host), request, record.tenant)

    def host_stream(
        self, host: HostRecord, request: StreamRequest
    ) -> contextlib.AbstractAsyncContextManager[ByteStream]:
        """Open a byte stream to a host for the caller's tenant. Raises LabfleetError."""
        return self._dialled(host, request, self.tenant)

    def _dialled(
        self, host: HostRecord, request: StreamRequest, tenant: TenantId
    ) -> contextlib.AbstractAsyncContextManager[ByteStream]:
        return dial(
            host.address,
            host.data_port,
            request,
            host=host.id,
            tenant=tenant,
            key=self._key,
            clock=self.clock,
        )

    @contextlib.asynccontextmanager
    async def store_stream(self, request: StreamRequest) -> AsyncIterator[ByteStream]:
        """Open a byte stream to the image store for the caller's tenant. Raises LabfleetError."""
        address, _, port = self.settings.image_store.rpartition(":")
        async with dial(
            address,
            int(port),
            request,
            host=IMAGE_STORE,
            tenant=self.tenant,
            key=self._key,
            clock=self.clock,
        ) as stream:
            yield stream

    # -- writing

    async def change(
        self,
        record: ContainerRecord,
        alter: Callable[[ContainerRecord], ContainerRecord],
    ) -> ContainerRecord:
        """Compare-and-set a container's record until it holds; the generation grows by one.

        `alter` may raise to refuse. Raises NotFoundError when the record is gone.
        """
        key = container_key(record.tenant, record.id)
        bucket = self.memory.containers.bucket
        entry = self.memory.containers.entries.get(key)
        for _ in range(_MOST_TRIES):
            if entry is None:
                raise NotFoundError(f"No such container: {record.id}")
            altered = alter(entry.value)
            altered = altered.model_copy(update={"generation": entry.value.generation + 1})
            try:
                revision = await bucket.update(key, altered, entry.revision)
            except StaleError:
                entry = await self._newest(key)
                continue
            await self.memory.containers.wait_for(revision)
            return altered
        raise ConflictError(f"container {record.name} is being changed by others, try again")

    async def _newest(self, key: str) -> Entry[ContainerRecord] | None:
        return await self.memory.containers.bucket.get(key)

    async def emit(self, kind: str, action: str, subject: str, attributes: dict[str, str]) -> None:
        """Publish an event in docker's words."""
        await self.bus.emit(
            FleetEvent(
                tenant=self.tenant,
                type=kind,
                action=action,
                id=subject,
                attributes=attributes,
                time_ns=self.clock.now_ns(),
            )
        )

    # -- waiting

    @contextlib.contextmanager
    def watching(self, record: ContainerRecord) -> Iterator[Watch]:
        """Follow one container's observations; none that comes later is missed."""
        watch = Watch(self.seen(record))
        self._watches.setdefault(record.id, set()).add(watch)
        try:
            yield watch
        finally:
            there = self._watches[record.id]
            there.discard(watch)
            if not there:
                del self._watches[record.id]

    def _show(self, seen: Observation) -> None:
        """Let those who watch see an observation, unless they saw a greater one."""
        for watch in self._watches.get(seen.id, ()):
            if watch.last is None or watch.last.order() <= seen.order():
                watch.last = seen
                watch.moved.set()

    def _on_observed(self, key: str, entry: Entry[Observation] | None) -> None:
        told = self._told.get(key)
        if told is not None and (entry is None or _newness(entry.value) >= _newness(told)):
            del self._told[key]
        if entry is not None:
            self._show(entry.value)
        container = ContainerId(key.partition(".")[2])
        for watch in self._watches.get(container, ()):
            watch.moved.set()

    def _on_record(self, key: str, entry: Entry[ContainerRecord] | None) -> None:
        if entry is None:
            container = ContainerId(key.partition(".")[2])
            for told in [each for each in self._told if each.endswith(f".{container}")]:
                del self._told[told]
            for watch in self._watches.get(container, ()):
                watch.is_gone = True
                watch.moved.set()


def _newness(seen: Observation) -> tuple[tuple[int, State, int], int]:
    """What makes one observation newer than another: within a state, the generation that it answers."""
    return seen.order(), seen.generation
