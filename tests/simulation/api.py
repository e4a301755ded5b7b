"""A thin api, and the clients that drive it: create, start, stop, restart, rm, with retries."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.loop import Process, Steps
from tests.simulation.machine import BROKEN, CODE, GRACE, LIFE
from tests.simulation.store import Entry, ExistsError, Mirror

from labfleet_api.core.views import state_of
from labfleet_proto.buckets import container_key, name_key, observed_key
from labfleet_proto.containers import (
    ContainerRecord,
    ContainerSpec,
    Goal,
    Limits,
    NameRecord,
    Observation,
    PortBinding,
    State,
)
from labfleet_proto.errors import (
    ConflictError,
    LabfleetError,
    NotFoundError,
    StaleError,
    UnavailableError,
)
from labfleet_proto.ids import OPERATORS, ContainerId, Digest
from labfleet_proto.images import ImagePin
from labfleet_proto.placement import ContainerPlaced, PlaceContainer
from labfleet_proto.restarts import Restart, RestartPolicy

if TYPE_CHECKING:
    from tests.simulation.world import World

UNIT = 1 << 20
_PLACE_LIMIT_S = 10.0
_REACH_LIMIT_S = 20.0
_MOST_TRIES = 5
_PIN = ImagePin(
    reference="web",
    image_id=Digest("sha256:0"),
    repository="web",
    manifest_digest=Digest("sha256:0"),
    layers=(),
)

Alter = Callable[[ContainerRecord], ContainerRecord]


class Api:
    def __init__(self, world: "World", process: Process) -> None:
        self._world, self.process = world, process
        self._loop, self._store, self._bus = world.loop, world.store, world.bus
        self._records = world.mirror(process, "containers")
        self._observed = world.mirror(process, "observed")

    def mirrors(self) -> list[Mirror]:
        return [self._records, self._observed]

    def find(self, name: str) -> ContainerRecord:
        """Raises NotFoundError."""
        for record in self._records.values():
            if record.name == name:
                return record
        raise NotFoundError(f"no such container: {name}")

    def _state(self, record: ContainerRecord) -> str:
        return state_of(record, self._observed.get(observed_key(record.assignment.host, record.id)))

    # -- requests

    def create(self, name: str, spec: ContainerSpec) -> Steps:
        world, now_ns = self._world, self._loop.now_ns()
        container = world.new_id()
        names, key = self._store.buckets["names"], name_key(OPERATORS, name)
        claim = NameRecord(id=container, created_at_ns=now_ns)
        try:
            claimed = yield from self._store.call(names.create, key, claim)
        except ExistsError as exc:
            raise ConflictError(f"the name {name} is in use") from exc
        args = PlaceContainer(
            container=container,
            tenant=OPERATORS,
            name=name,
            spec=spec,
            image=_PIN,
            created_at_ns=now_ns,
        )
        try:
            placed: ContainerPlaced = yield from self._bus.call("place", args, _PLACE_LIMIT_S)
        except UnavailableError:
            raise  # it may have been placed: an unused name is dropped by the scheduler
        except LabfleetError:
            yield from self._store.call(names.delete, key, claimed)
            raise
        yield from self._records.wait_for(placed.revision)
        world.acknowledge_create(placed.record)

    def start(self, name: str) -> Steps:
        record = self.find(name)
        state = self._state(record)
        if state in ("running", "restarting"):
            return  # not modified
        if state == "removing":
            raise ConflictError(f"{name} is marked for removal")

        def alter(old: ContainerRecord) -> ContainerRecord:
            if old.goal is Goal.REMOVED:
                raise ConflictError(f"{name} is marked for removal")
            return old.model_copy(update={"goal": Goal.RUNNING, "attempt": old.attempt + 1})

        self._world.asked_to_start.add(record.id)
        altered = yield from self._change(record, alter)
        yield from self._reach(altered)
        self._world.acknowledge_start(altered)

    def stop(self, name: str, grace_s: int) -> Steps:
        record = self.find(name)
        if self._state(record) not in ("running", "restarting"):
            return  # not modified

        def alter(old: ContainerRecord) -> ContainerRecord:
            if old.goal is Goal.REMOVED:
                return old
            return old.model_copy(update={"goal": Goal.STOPPED, "stop_timeout_s": grace_s})

        yield from self._reach((yield from self._change(record, alter)))

    def restart(self, name: str, grace_s: int) -> Steps:
        yield from self.stop(name, grace_s)
        yield from self.start(name)

    def remove(self, name: str) -> Steps:
        record = self.find(name)
        if self._state(record) == "removing":
            raise ConflictError(f"removal of {name} is in progress")
        self._world.asked_to_remove.add(record.id)
        altered = yield from self._change(
            record, lambda old: old.model_copy(update={"goal": Goal.REMOVED})
        )
        try:
            yield from self._reach(altered)
        except NotFoundError:
            return

    # -- how

    def _change(self, record: ContainerRecord, alter: Alter) -> Steps:
        """Compare-and-set until it holds; the generation grows by one."""
        key, bucket = container_key(record.tenant, record.id), self._store.buckets["containers"]
        entry: Entry | None = self._records.entries.get(key)
        for _ in range(_MOST_TRIES):
            if entry is None:
                raise NotFoundError(f"no such container: {record.id}")
            altered = alter(entry.value)
            altered = altered.model_copy(update={"generation": entry.value.generation + 1})
            try:
                revision = yield from self._store.call(bucket.update, key, altered, entry.revision)
            except StaleError:
                entry = yield from self._store.call(bucket.get, key)
                continue
            yield from self._records.wait_for(revision)
            return altered
        raise ConflictError(f"{record.name} is being changed by others")

    def _reach(self, record: ContainerRecord) -> Steps:
        """Ask the host to reach the goal now. Raises what prevented it."""
        address = f"reconcile.{record.assignment.host}"
        seen: Observation = yield from self._bus.call(address, record, _REACH_LIMIT_S)
        if record.goal is Goal.RUNNING:
            if seen.state is State.REMOVED:
                raise NotFoundError(f"{record.name} was removed meanwhile")
            if seen.attempt == record.attempt and seen.error:
                raise ConflictError(f"{record.name} did not start: {seen.error}")
        key = observed_key(seen.host, seen.id)
        for _ in range(100):
            shown = self._observed.get(key)
            if shown is not None and shown.order() >= seen.order():
                return
            if seen.state is State.REMOVED:
                return
            yield 0.05


def a_spec(world: "World") -> ContainerSpec:
    """A random container: what it takes, and how it behaves."""
    rng = world.rng
    labels = {GRACE: rng.choice(("0.05", "1", "30"))}
    if rng.random() < 0.3:
        labels[LIFE] = f"{rng.uniform(0.1, 12):.3f}"
    if rng.random() < 0.1:
        labels[BROKEN] = "yes"
    auto_remove = rng.random() < 0.25
    policy = RestartPolicy()
    own = random.Random(
        f"{world.seed} {world.loop.now}"
    )  # as before policies the seeds stay the same
    if not auto_remove and own.random() < world.faults.policies:
        name = own.choice(list(Restart))
        policy = RestartPolicy(name=name, most_retries=2 if name is Restart.ON_FAILURE else 0)
        labels[CODE] = own.choice(("0", "1"))
    return ContainerSpec(
        entrypoint=("sh",),
        command=(),
        env=(),
        hostname="web",
        labels=labels,
        limits=Limits(memory_bytes=rng.randint(1, 3) * UNIT, cpu_millis=0, pids=0),
        ports=(PortBinding(container_port=80),) if rng.random() < 0.4 else (),
        auto_remove=auto_remove,
        restart=policy,
    )


def client(world: "World", names: list[str], until_s: float) -> Steps:
    """One impatient user: does something, tries again or gives up when nobody answers."""
    rng, loop = world.rng, world.loop
    while loop.now < until_s:
        name = rng.choice(names)
        what = rng.choices(
            ("create", "run", "start", "stop", "restart", "remove"), (2, 4, 3, 3, 1, 3)
        )[0]
        for _ in range(rng.randint(1, 3)):
            api, grace_s = world.api, rng.randint(0, 3)
            loop.note("client", f"{what} {name}")
            try:
                if what in ("create", "run"):
                    yield api.process.spawn(api.create(name, a_spec(world)))
                if what in ("run", "start"):
                    yield api.process.spawn(api.start(name))
                elif what == "stop":
                    yield api.process.spawn(api.stop(name, grace_s))
                elif what == "restart":
                    yield api.process.spawn(api.restart(name, grace_s))
                elif what == "remove":
                    yield api.process.spawn(api.remove(name))
                break
            except UnavailableError:
                yield rng.uniform(0.05, 1.0)
            except LabfleetError:
                break
        yield rng.uniform(0.0, 1.5)


def new_container_id(number: int) -> ContainerId:
    return ContainerId(f"c{number:03d}")
