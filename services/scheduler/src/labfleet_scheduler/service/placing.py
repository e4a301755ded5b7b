"""Places containers: the active scheduler answers `place`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from labfleet_chassis.service import Chassis
from labfleet_chassis.store import Entry, ExistsError
from labfleet_proto import buckets
from labfleet_proto.buckets import container_key, name_key, observed_key
from labfleet_proto.containers import (
    Assignment,
    ContainerRecord,
    ContainerSpec,
    Goal,
    Observation,
    VolumeMount,
    VolumeRecord,
)
from labfleet_proto.errors import NoRoomError, StaleError, UnavailableError
from labfleet_proto.host_policies import is_open, labels_of
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import ContainerId, Digest, HostId
from labfleet_proto.images import LayerRef
from labfleet_proto.jobs import Job
from labfleet_proto.layers import LayerCopy
from labfleet_proto.placement import HOLD, ContainerPlaced, Hold, PlaceContainer
from labfleet_proto.resources import Resources
from labfleet_scheduler import metrics
from labfleet_scheduler.core import placement, ports
from labfleet_scheduler.core.image_copies import ImageCopies, image_bytes
from labfleet_scheduler.core.placement import HostSnapshot, Request, Unplaceable
from labfleet_scheduler.core.usage import Usage
from labfleet_scheduler.service.leadership import Leadership
from labfleet_scheduler.service.memory import Memory
from labfleet_scheduler.settings import Settings

_PICK_LIFE_S = 30.0
"""As long as a hold: no record by then means that there will be none."""
_COUNT_EVERY_S = 5.0


@dataclass(frozen=True)
class _Pick:
    """A host was chosen for a container whose record is not in the mirror yet."""

    host: HostId
    resources: Resources
    made_s: float


class Placer:
    """Places one container at a time; the hosts have the last word through holds."""

    def __init__(
        self, chassis: Chassis, memory: Memory, settings: Settings, leadership: Leadership
    ) -> None:
        self._chassis = chassis
        self._memory = memory
        self._settings = settings
        self._usage = Usage()
        self._leadership = leadership
        self._given: dict[ContainerId, tuple[float, set[tuple[str, int]]]] = {}
        """Host ports given out a moment ago, with the time."""
        self._picked: dict[ContainerId, _Pick] = {}
        """Chosen a moment ago: their records are on the way."""
        self._claiming = asyncio.Lock()
        """Host ports and volumes are given out to one container at a time."""
        for entry in memory.containers.entries.values():
            self._count_in(entry.value)
        memory.containers.listen(self._on_record)
        memory.observed.listen(self._on_observed)
        self._copies = ImageCopies()
        for copy in memory.layer_copies.values():
            self._copies.note(copy)
        memory.layer_copies.listen(self._on_copy)

    def _on_copy(self, key: str, entry: Entry[LayerCopy] | None) -> None:
        if entry is not None:
            self._copies.note(entry.value)
        else:
            digest, _, host = key.partition(".")
            self._copies.forget(Digest(f"sha256:{digest}"), HostId(host))

    def _on_record(self, key: str, entry: Entry[ContainerRecord] | None) -> None:
        if entry is not None:
            self._count_in(entry.value)
        else:
            self._usage.forget(ContainerId(key.partition(".")[2]))

    def _on_observed(self, _key: str, entry: Entry[Observation] | None) -> None:
        if entry is not None:
            seen = entry.value
            record = self._memory.containers.get(container_key(seen.tenant, seen.id))
            if record is not None:
                self._count_in(record)

    def _count_in(self, record: ContainerRecord) -> None:
        key = observed_key(record.assignment.host, record.id)
        self._usage.note(record, self._memory.observed.get(key))
        self._picked.pop(record.id, None)
        self._given.pop(record.id, None)

    async def place(self, job: Job, args: PlaceContainer) -> ContainerPlaced:
        """Serve `place`. Safe to repeat: a container that has a record keeps it.

        Raises NoRoomError with the reasons, ConflictError, InvalidRequestError, UnavailableError.
        """
        try:
            return await self._place(job, args)
        except NoRoomError:
            await self._leadership.confirm()
            # The job may be a repeated one, and the first have found a place.
            there = await self._stored(args)
            if there is None:
                raise
            return there

    async def _stored(self, args: PlaceContainer) -> ContainerPlaced | None:
        """The record as the store has it."""
        key = container_key(args.tenant, args.container)
        there = await self._memory.containers.bucket.get(key)
        if there is None:
            return None
        return ContainerPlaced(record=there.value, revision=there.revision)

    async def _place(self, job: Job, args: PlaceContainer) -> ContainerPlaced:
        known = self._memory.containers.entries.get(container_key(args.tenant, args.container))
        if known is not None:
            return ContainerPlaced(record=known.value, revision=known.revision)
        constraints = tuple(placement.parse_constraint(text) for text in args.constraints)
        request = Request(
            container=args.container,
            resources=args.spec.resources(),
            constraints=constraints,
            ports=frozenset(
                (b.protocol, b.host_port) for b in args.spec.ports if b.host_port is not None
            ),
            homes=self._homes(args),
        )
        refused: dict[HostId, str] = {}
        while True:
            host, reason = self._choose(request, args.image.layers, refused)
            answer = await self._hold(job, host, request)
            if answer is None:
                break
            refused[host.id] = answer
            self._picked.pop(args.container, None)
        placed = await self._record(args, host, reason)
        metrics.PLACEMENTS.labels("placed").inc()
        self._chassis.log.info(
            "container.placed", container=args.container, host=host.id, reason=reason
        )
        return placed

    def _homes(self, args: PlaceContainer) -> frozenset[HostId]:
        found = (
            self._memory.volumes.get(name_key(args.tenant, mount.volume))
            for mount in args.spec.mounts
        )
        return frozenset(volume.home for volume in found if volume is not None)

    def _choose(
        self, request: Request, layers: Sequence[LayerRef], refused: dict[HostId, str]
    ) -> tuple[HostSnapshot, str]:
        """Pick a host and reserve it in memory. Raises NoRoomError."""
        hosts = [host for host in self._snapshot(layers) if host.id not in refused]
        choice = placement.place(request, hosts, self._settings.score)
        if isinstance(choice, Unplaceable):
            metrics.PLACEMENTS.labels("refused").inc()
            said = "; ".join(f"{host} said no: {why}" for host, why in sorted(refused.items()))
            text = f"{choice.explanation}; {said}" if said and hosts else said or choice.explanation
            self._chassis.log.info("container.refused", container=request.container, why=text)
            raise NoRoomError(text if text.startswith("no host") else f"no host fits: {text}")
        host = next(host for host in hosts if host.id == choice.order[0])
        now_s = self._chassis.clock.monotonic_s()
        self._picked[request.container] = _Pick(host.id, request.resources, now_s)
        return host, choice.reason

    async def _hold(self, job: Job, host: HostSnapshot, request: Request) -> str | None:
        """Ask the host; None when it grants, else its reason."""
        try:
            answer = await self._chassis.bus.call(
                HOLD,
                Hold(container=request.container, resources=request.resources),
                tenant=job.tenant,
                subject=request.container,
                host=host.id,
            )
        except UnavailableError as exc:
            return exc.message
        return None if answer.is_granted else f"it lacks {', '.join(answer.lacking)}"

    async def _record(
        self, args: PlaceContainer, host: HostSnapshot, reason: str
    ) -> ContainerPlaced:
        """Store the record, and the volumes that are new. One create: placed and known at once."""
        if not (args.spec.ports or args.spec.mounts):
            return await self._store(args, args.spec, host, reason)
        now_s = self._chassis.clock.monotonic_s()
        async with self._claiming:
            bindings = ports.fill(
                args.spec.ports,
                self._taken_ports(),
                self._settings.port_first,
                self._settings.port_last,
            )
            spec = args.spec.model_copy(update={"ports": bindings})
            # Until its record is in the mirror, also when the answer to its writing is lost.
            self._given[args.container] = (now_s, _ports_of(spec))
            mounts = [await self._home(args, mount, host.id) for mount in spec.mounts]
            spec = spec.model_copy(update={"mounts": tuple(mounts)})
            placed = await self._store(args, spec, host, reason)
            await self._memory.containers.wait_for(placed.revision)
        return placed

    async def _store(
        self, args: PlaceContainer, spec: ContainerSpec, host: HostSnapshot, reason: str
    ) -> ContainerPlaced:
        if not spec.hostname:  # in the network of its host, whichever that is
            spec = spec.model_copy(update={"hostname": host.id})
        record = ContainerRecord(
            id=args.container,
            tenant=args.tenant,
            name=args.name,
            spec=spec,
            image=args.image,
            created_at_ns=args.created_at_ns,
            assignment=Assignment(host=host.id, epoch=host.epoch, reason=reason),
        )
        await self._leadership.confirm()
        key = container_key(args.tenant, args.container)
        try:
            revision = await self._memory.containers.bucket.create(key, record)
        except ExistsError:
            there = await self._stored(args)
            if there is None:
                raise
            return there
        return ContainerPlaced(record=record, revision=revision)

    async def _home(self, args: PlaceContainer, mount: VolumeMount, host: HostId) -> VolumeMount:
        """Have the mount's volume, made here if it is new; the mount says what the volume is."""
        volume = mount.volume
        key = name_key(args.tenant, volume)
        known = self._memory.volumes.get(key)
        if known is not None:
            return mount.model_copy(update={"driver_opts": known.driver_opts})
        record = VolumeRecord(
            tenant=args.tenant,
            name=volume,
            home=host,
            created_at_ns=self._chassis.clock.now_ns(),
            labels=mount.labels,
            is_anonymous=mount.is_anonymous,
            driver_opts=mount.driver_opts,
        )
        try:
            revision = await self._memory.volumes.bucket.create(key, record)
        except ExistsError as exc:
            raise StaleError(f"volume {volume} was made elsewhere meanwhile: try again") from exc
        await self._memory.volumes.wait_for(revision)
        return mount

    def _taken_ports(self) -> set[tuple[str, int]]:
        """Of every container that has a record, and of those whose record is on its way."""
        now_s = self._chassis.clock.monotonic_s()
        self._given = {
            container: given
            for container, given in self._given.items()
            if now_s - given[0] < _PICK_LIFE_S
        }
        found = {port for _, ports in self._given.values() for port in ports}
        for record in self._memory.containers.values():
            found |= _ports_of(record.spec)
        return found

    def _snapshot(self, layers: Sequence[LayerRef] = ()) -> list[HostSnapshot]:
        now_s = self._chassis.clock.monotonic_s()
        for container, pick in list(self._picked.items()):
            if now_s - pick.made_s > _PICK_LIFE_S:
                del self._picked[container]
        ports_in_use = self._usage.ports()
        whole, present = image_bytes(layers), self._copies.present(layers)
        return [
            self._snapshot_of(
                host, frozenset(ports_in_use.get(host.id, ())), whole - present.get(host.id, 0)
            )
            for host in self._memory.hosts.values()
        ]

    def _snapshot_of(
        self, host: HostRecord, used: frozenset[tuple[str, int]], missing_bytes: int
    ) -> HostSnapshot:
        lease = self._memory.leases.get(host.id)
        is_alive = self._memory.leases.age_s(host.id) < buckets.LEASES.ttl_s
        policy = self._memory.policies.get(host.id)
        free = host.capacity - self._usage.used(host.id)
        for pick in self._picked.values():
            if pick.host == host.id:
                free -= pick.resources
        return HostSnapshot(
            id=host.id,
            capacity=host.capacity,
            free=free,
            labels=labels_of(host, policy),
            is_alive=is_alive and lease is not None,
            is_drained=not is_open(host, policy),
            epoch=lease.epoch if lease else 0,
            taken_ports=used,
            missing_bytes=missing_bytes,
        )

    async def measure(self) -> None:
        """Set the gauges of the fleet, for ever."""
        while True:
            self._count()
            await asyncio.sleep(_COUNT_EVERY_S)

    def _count(self) -> None:
        hosts = self._snapshot()
        alive = [host for host in hosts if host.is_alive]
        metrics.HOSTS.labels("alive").set(len(alive))
        metrics.HOSTS.labels("lost").set(len(hosts) - len(alive))
        for gauge, vectors in (
            (metrics.FLEET_CAPACITY, [host.capacity for host in alive]),
            (metrics.FLEET_FREE, [host.free for host in alive]),
        ):
            total = sum(vectors, Resources())
            for name, value in total.model_dump().items():
                gauge.labels(name).set(value)
        goals = [record.goal for record in self._memory.containers.values()]
        for goal in Goal:
            metrics.CONTAINERS.labels(goal.value).set(goals.count(goal))


def _ports_of(spec: ContainerSpec) -> set[tuple[str, int]]:
    """Protocol and host port of what a container publishes."""
    return {(each.protocol, each.host_port) for each in spec.ports if each.host_port is not None}
