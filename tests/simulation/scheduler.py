"""A thin scheduler: leads by a lease, places with holds, keeps the promises."""

from typing import TYPE_CHECKING, Any

from tests.simulation.bus import Job
from tests.simulation.loop import Future, Lock, Process, Signal, Steps, within
from tests.simulation.store import ExistsError, Mirror

from labfleet_proto.buckets import LEADERS, LEASES, container_key, observed_key
from labfleet_proto.containers import Assignment, ContainerRecord
from labfleet_proto.errors import (
    ConflictError,
    LabfleetError,
    NoRoomError,
    StaleError,
    UnavailableError,
)
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import ContainerId, HostId
from labfleet_proto.placement import ContainerPlaced, HoldAnswer, PlaceContainer
from labfleet_proto.resources import Resources
from labfleet_scheduler.core import placement, ports, promises
from labfleet_scheduler.core.placement import HostSnapshot, Request, Unplaceable

if TYPE_CHECKING:
    from tests.simulation.world import World

_RENEW_EVERY_S = 1.5
_MARGIN_S = 1.0
_HOLD_LIMIT_S = 3.0
_PASS_EVERY_S = 5.0
_SETTLE_S = 0.01
_REMEMBER_S = 60.0
_PORTS = (32768, 32799)
_BUCKETS = ("containers", "names", "observed", "hosts", "leases")


class Scheduler:
    def __init__(self, world: "World", process: Process) -> None:
        self.loop, self.store, self.bus, self.bugs = world.loop, world.store, world.bus, world.bugs
        self.process = process
        self._mirror = {name: world.mirror(process, name) for name in _BUCKETS}
        self._since: dict[HostId, dict[ContainerId, tuple[int, Resources]]] = {}
        self._answers: dict[ContainerId, Future] = {}
        self._given: dict[ContainerId, set[tuple[str, int]]] = {}
        """Ports that were written, or may have been, and that the mirror does not show yet."""
        self._choosing = Lock(self.loop)
        self._renewed_s = float("-inf")
        self._led_s = float("inf")
        process.spawn(self._run())

    def mirrors(self) -> list[Mirror]:
        return list(self._mirror.values())

    # -- leading

    def _run(self) -> Steps:
        for mirror in self.mirrors():
            yield mirror.ready
        revision = yield from self._lead()
        self._led_s = self.loop.now
        self.loop.note(self.process.name, "leads")
        self.process.spawn(self._keep(revision))
        for name in ("containers", "names"):
            yield from self._catch_up(self._mirror[name])
        self.bus.serve(self.process, "place", self._place_job)
        yield from self._keep_promises()

    def _lead(self) -> Steps:
        bucket = self.store.buckets["leaders"]
        while True:
            self._renewed_s = self.loop.now
            try:
                return (yield from self.store.call(bucket.create, "scheduler", self.process.name))
            except (ExistsError, UnavailableError):
                yield _RENEW_EVERY_S / 3

    def _keep(self, revision: int) -> Steps:
        """Renew until the lease is lost, then end; a standby follows."""
        bucket = self.store.buckets["leaders"]
        while True:
            yield _RENEW_EVERY_S
            sent_s = self.loop.now
            try:
                update = self.store.call(bucket.update, "scheduler", self.process.name, revision)
                revision = yield from update
                self._renewed_s = sent_s
            except StaleError:
                break
            except UnavailableError:
                if self.loop.now - self._renewed_s > LEADERS.ttl_s:
                    break
        self.process.crash()

    def _catch_up(self, mirror: Mirror) -> Steps:
        """See what the leader before wrote last."""
        while mirror.revision < mirror.bucket.revision:
            yield 0.05

    def _check_lead(self) -> None:
        """A leader that was away may have been followed by another. Raises UnavailableError."""
        if self.loop.now - self._renewed_s > LEADERS.ttl_s - _MARGIN_S:
            raise UnavailableError("the leader's lease is not fresh")

    # -- placing

    def _place_job(self, job: Job) -> Steps:
        """Safe to repeat: the first answer stays the answer, also when the container is gone again."""
        args: PlaceContainer = job.args
        if "a repeated place is a new one" in self.bugs:
            return (yield from self._place(args))
        if job.sent_s < self._led_s:
            raise UnavailableError("asked before this scheduler led")
        if args.container not in self._answers:
            self._answers[args.container] = self.process.spawn(self._place(args))
            self.loop.at(_REMEMBER_S, lambda: self._answers.pop(args.container, None))
        try:
            return (yield self._answers[args.container])
        except LabfleetError:
            self._check_lead()  # another may have placed it meanwhile: "no" is not for us to say
            raise

    def _place(self, args: PlaceContainer) -> Steps:
        known = self._mirror["containers"].entries.get(container_key(args.tenant, args.container))
        if known is not None:
            return ContainerPlaced(record=known.value, revision=known.revision)
        request = Request(args.container, args.spec.resources())
        refused: dict[HostId, str] = {}
        while True:
            host, reason = self._choose(request, refused)
            why = yield from self._hold(host, request)
            if why is None:
                break
            refused[host.id] = why
            self._since.get(host.id, {}).pop(args.container, None)
        yield from self._choosing.take()
        try:
            return (yield from self._record(args, host, reason))
        finally:
            self._choosing.free()

    def _choose(self, request: Request, refused: dict[HostId, str]) -> tuple[HostSnapshot, str]:
        hosts = [self._snapshot(host) for host in self._mirror["hosts"].values()]
        hosts = [host for host in hosts if host.id not in refused]
        choice = placement.place(request, hosts)
        if isinstance(choice, Unplaceable):
            raise NoRoomError(f"{choice.explanation} {refused or ''}")
        host = next(host for host in hosts if host.id == choice.order[0])
        since = self._since.setdefault(host.id, {})
        since[request.container] = (self.loop.now_ns(), request.resources)
        return host, choice.reason

    def _snapshot(self, host: HostRecord) -> HostSnapshot:
        leases = self._mirror["leases"]
        lease = leases.get(host.id)
        since = self._since.setdefault(host.id, {})
        for container, (placed_ns, _) in list(since.items()):
            if placed_ns < host.updated_at_ns - 1_000_000_000:
                del since[container]
        free = host.free
        for _, resources in since.values():
            free -= resources
        is_alive = lease is not None and leases.age_s(host.id) < LEASES.ttl_s
        epoch = lease.epoch if lease else 0
        return HostSnapshot(host.id, host.capacity, free, {}, is_alive=is_alive, epoch=epoch)

    def _hold(self, host: HostSnapshot, request: Request) -> Steps:
        """Ask the host; None when it grants, else its reason."""
        if "no hold" in self.bugs:
            return None
        try:
            args = (request.container, request.resources)
            answer: HoldAnswer = yield from self.bus.call(f"hold.{host.id}", args, _HOLD_LIMIT_S)
        except UnavailableError as exc:
            return exc.message
        return None if answer.is_granted else f"it lacks {', '.join(answer.lacking)}"

    def _record(self, args: PlaceContainer, host: HostSnapshot, reason: str) -> Steps:
        """Store the record: one create, placed and known at once."""
        self._check_lead()
        filled = ports.fill(args.spec.ports, self._taken(), *_PORTS)
        record = ContainerRecord(
            id=args.container,
            tenant=args.tenant,
            name=args.name,
            spec=args.spec.model_copy(update={"ports": filled}),
            image=args.image,
            created_at_ns=args.created_at_ns,
            assignment=Assignment(host=host.id, epoch=host.epoch, reason=reason),
        )
        if "given ports are forgotten" not in self.bugs:
            self._given[record.id] = {(port.protocol, port.host_port or 0) for port in filled}
            self.loop.at(_REMEMBER_S, lambda: self._given.pop(record.id, None))
        key, bucket = container_key(args.tenant, args.container), self.store.buckets["containers"]
        try:
            revision = yield from self.store.call(bucket.create, key, record)
        except ExistsError:
            there = yield from self.store.call(bucket.get, key)
            if there is None:
                raise ConflictError(f"container {args.container} is gone") from None
            return ContainerPlaced(record=there.value, revision=there.revision)
        return ContainerPlaced(record=record, revision=revision)

    def _taken(self) -> set[tuple[str, int]]:
        taken = {
            (port.protocol, port.host_port)
            for record in self._mirror["containers"].values()
            for port in record.spec.ports
        }
        return taken.union(*self._given.values())

    # -- promises

    def _keep_promises(self) -> Steps:
        moved = Signal(self.loop)
        for name in ("containers", "names", "observed"):
            self._mirror[name].listen(lambda _key, _entry: moved.set())
        while True:
            moved.clear()
            now_ns = self.loop.now_ns()
            if "names are dropped at once" in self.bugs:
                now_ns += int(promises.ORPHAN_NAME_S * 1e9)
            views = [self._mirror[name].as_dict() for name in ("containers", "names", "observed")]
            # Observations of what is gone are not kept here: their time would hide other faults.
            for action in promises.due(*views, now_ns, exit_code_kept_s=0):
                yield 0
                try:
                    yield from self._act(action)
                except LabfleetError:
                    yield 0.5
            try:
                yield from within(self.loop, moved.wait(), _PASS_EVERY_S, "a change")
                yield _SETTLE_S
            except UnavailableError:
                continue

    def _act(self, action: promises.Action) -> Steps:
        observed = self.store.buckets["observed"]
        match action:
            case promises.DropContainer():
                yield from self._drop_container(action)
            case promises.DropName():
                name = self._mirror["names"].entries.get(action.name_key)
                is_same = name is not None and name.value.id == action.container
                if name is not None and (is_same or "a new claim is dropped" in self.bugs):
                    yield from self._drop("names", action.name_key, name.revision)
            case promises.DropObservation():
                if (yield from self._is_recorded(action.observed_key)):
                    return
                yield from self.store.call(observed.delete, action.observed_key)

    def _drop_container(self, action: promises.DropContainer) -> Steps:
        record = self._mirror["containers"].entries.get(action.container_key)
        name = self._mirror["names"].entries.get(action.name_key)
        if name is not None and record is not None and name.value.id == record.value.id:
            yield from self._drop("names", action.name_key, name.revision)
        if record is None:
            return
        is_gone = yield from self._drop("containers", action.container_key, record.revision)
        if not is_gone and "observation dropped before its record" in self.bugs:
            seen = observed_key(record.value.assignment.host, record.value.id)
            yield from self.store.call(self.store.buckets["observed"].delete, seen)

    def _is_recorded(self, observed_key: str) -> Steps:
        """A record that the mirror lacks may be too new for it: ask the store itself."""
        if "scheduler believes an absence" in self.bugs:
            return False
        seen: Any = self._mirror["observed"].get(observed_key)
        if seen is None:
            return True
        key = container_key(seen.tenant, seen.id)
        entry = yield from self.store.call(self.store.buckets["containers"].get, key)
        return entry is not None

    def _drop(self, bucket: str, key: str, revision: int) -> Steps:
        """Delete at a revision; False if it changed meanwhile: the next pass looks again."""
        try:
            yield from self.store.call(self.store.buckets[bucket].delete, key, revision)
        except StaleError:
            return False
        return True
