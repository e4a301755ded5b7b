"""What must hold: at every write, and at the end when all faults are over and time has passed."""

from typing import TYPE_CHECKING, Any

from tests.simulation.loop import Violation
from tests.simulation.machine import CODE, Machine

from labfleet_proto.buckets import container_key, name_key, observed_key
from labfleet_proto.containers import ContainerRecord, Goal, Observation, State
from labfleet_proto.ids import ContainerId
from labfleet_proto.resources import Resources, fits
from labfleet_proto.restarts import Restart

if TYPE_CHECKING:
    from tests.simulation.world import World

BACK = "observed states never go back"
NAMES = "a name is given out once"
PORTS = "a host port is given out once"
ROOM = "a placed container has its room"
LOST = "what was acknowledged is not lost"
LEFT = "after rm nothing is left"
GOAL = "the goal is reached"
VIEW = "every view converges"


def watch(world: "World") -> None:
    """Check every write to the store."""
    greatest: dict[ContainerId, tuple[int, State]] = {}

    def on_observed(key: str, _old: Any, new: Observation | None) -> None:
        if new is None:
            return
        if new.order() < greatest.get(new.id, new.order()):
            raise Violation(BACK, f"{key}: {greatest[new.id]} to {new.order()}")
        greatest[new.id] = new.order()

    def on_record(key: str, old: ContainerRecord | None, new: ContainerRecord | None) -> None:
        if new is None or old is not None:
            return
        world.loop.note("store", f"{key} {new.name} on {new.assignment.host}")
        for entry in world.store.buckets["containers"].entries.values():
            _check_pair(world, entry.value, new)
        _check_room(world, new)

    world.store.buckets["observed"].checks.append(on_observed)
    world.store.buckets["containers"].checks.append(on_record)


def _check_pair(world: "World", other: ContainerRecord, new: ContainerRecord) -> None:
    there = world.machines[other.assignment.host].ledger.get(other.id)
    is_removed = there is not None and there.seen is not None and there.seen.state is State.REMOVED
    if other.name == new.name and not is_removed:
        raise Violation(NAMES, f"{new.name} of {other.id} also to {new.id}")
    mine = {port.host_port for port in new.spec.ports}
    both = mine & {port.host_port for port in other.spec.ports}
    if both and not is_removed:
        raise Violation(PORTS, f"{both} of {other.id} also to {new.id}")


def _check_room(world: "World", new: ContainerRecord) -> None:
    """What runs, and what was placed and never started, fits. Holds are lost with the agent's memory."""
    name = new.assignment.host
    machine, agent = world.machines[name], world.services[f"agent-{name}"]
    if not agent.has_kept_its_memory:
        return
    total = new.spec.resources()
    running = {proc.record.id for proc in machine.running()}
    for entry in world.store.buckets["containers"].entries.values():
        record: ContainerRecord = entry.value
        worker = agent.workers.get(record.id)
        waits = record.goal in (Goal.CREATED, Goal.RUNNING) and (
            worker is None or worker.seen is None
        )
        if record.assignment.host == name and (record.id in running or waits):
            total += record.spec.resources()
    if not fits(total, machine.capacity):
        raise Violation(ROOM, f"{name} has {machine.capacity}, promised {total}")


def check_started(world: "World", record: ContainerRecord) -> None:
    """An acknowledged start has run, unless a later wish overtook it."""
    now = world.store.buckets["containers"].get(container_key(record.tenant, record.id))
    is_overtaken = now is None or now.value.generation > record.generation
    if not is_overtaken and (record.id, record.attempt) not in world.truth.begun:
        raise Violation(LOST, f"start {record.attempt} of {record.name} was acknowledged")


def check_end(world: "World") -> None:
    """Everything is at rest: desired equals observed equals true, and nothing is left over."""
    records = {
        entry.value.id: entry.value for entry in world.store.buckets["containers"].entries.values()
    }
    for record in world.acknowledged:
        is_over = record.spec.auto_remove and record.id in world.asked_to_start
        if not is_over and record.id not in records.keys() | world.asked_to_remove:
            raise Violation(LOST, f"create of {record.id} was acknowledged, it has no record")
    for record in records.values():
        _check_goal(world, record)
    _check_equal("names", world, {name_key(each.tenant, each.name) for each in records.values()})
    observed = {
        observed_key(each.assignment.host, each.id) for each in records.values() if each.attempt
    }
    _check_equal("observed", world, observed)
    spaces = {
        f"net.{space.address}"
        for machine in world.machines.values()
        for space in machine.spaces.values()
    }
    _check_equal("addresses", world, spaces)
    for machine in world.machines.values():
        here = {each.id for each in records.values() if each.assignment.host == machine.name}
        _check_machine(world, machine, here)
    for service in world.services.values():
        _check_views(service)


def _check_equal(bucket: str, world: "World", wanted: set[str]) -> None:
    there = set(world.store.buckets[bucket].entries)
    if there - wanted:
        raise Violation(LEFT, f"{bucket}: {sorted(there - wanted)} should be gone")
    if wanted - there:
        raise Violation(GOAL, f"{bucket}: {sorted(wanted - there)} are missing")


def _check_goal(world: "World", record: ContainerRecord) -> None:
    machine = world.machines[record.assignment.host]
    key = observed_key(record.assignment.host, record.id)
    entry = world.store.buckets["observed"].get(key)
    seen: Observation | None = entry.value if entry else None
    proc = machine.procs.get(record.id)
    what = (
        f"{record.name} ({record.id}) attempt {record.attempt}, goal {record.goal}: {seen!r:.200}"
    )
    if record.goal is Goal.REMOVED:
        raise Violation(LEFT, what)
    if record.attempt == 0:
        is_right = seen is None and proc is None
    elif seen is None or seen.attempt != record.attempt:
        is_right = False
    elif seen.state is State.EXITED:
        is_right = proc is None and not record.spec.auto_remove
        has_run = (record.id, record.attempt) in world.truth.begun
        has_ended_alone = has_run and _may_have_ended(record, seen)
        is_right &= record.goal is Goal.STOPPED or has_ended_alone or _could_not(record, seen)
    else:
        is_right = record.goal is Goal.RUNNING and seen.state is State.RUNNING
        is_right &= proc is not None and proc.has_begun and proc.is_alive
        is_right &= record.id in machine.spaces
    if not is_right:
        raise Violation(GOAL, f"{what}; {proc}")


def _may_have_ended(record: ContainerRecord, seen: Observation) -> bool:
    """Whether the restart policy leaves a run that ended so for the last one."""
    policy = record.spec.restart
    if policy.name is Restart.ON_FAILURE:
        return seen.exit_code == 0 or seen.restart_count >= policy.most_retries
    own_code = int(record.spec.labels.get(CODE, "0"))
    return policy.name is Restart.NO and seen.exit_code in (0, own_code)


def _could_not(record: ContainerRecord, seen: Observation) -> bool:
    """Whether it ended for a reason that no policy helps against."""
    is_kept = record.spec.restart.name in (Restart.ALWAYS, Restart.UNLESS_STOPPED)
    return bool(seen.error) and not (is_kept and seen.started_at_ns)


def _check_machine(world: "World", machine: Machine, here: set[ContainerId]) -> None:
    agent = world.services[f"agent-{machine.name}"]
    things = {
        "ledger": set(machine.ledger),
        "layers": set(machine.layers),
        "uid slots": set(machine.slots),
        "exit files": set(machine.exit_codes),
        "processes": set(machine.procs),
        "namespaces": set(machine.spaces),
        "workers": set(agent.workers),
    }
    for what, holders in things.items():
        if holders - here:
            raise Violation(LEFT, f"{machine.name}: {what} of {sorted(holders - here)}")
    alive = {proc.record.id for proc in machine.running()}
    if set(machine.procs) - alive or set(machine.spaces) - alive:
        text = f"{sorted(machine.procs)} and {sorted(machine.spaces)} but {sorted(alive)} run"
        raise Violation(LEFT, f"{machine.name}: {text}")
    if agent.holds.total() != Resources():
        raise Violation(LEFT, f"{machine.name}: holds {agent.holds.total()}")
    published = world.store.buckets["hosts"].entries[machine.name].value.free
    if published != machine.capacity - agent.in_use():
        raise Violation(VIEW, f"{machine.name} says {published} is free")


def _check_views(service: Any) -> None:
    for mirror in service.mirrors():
        behind = {
            key
            for key in mirror.bucket.entries.keys() | mirror.entries.keys()
            if mirror.get(key) != (entry.value if (entry := mirror.bucket.get(key)) else None)
        }
        if behind and mirror.bucket.name not in ("hosts", "leases"):
            raise Violation(VIEW, f"{service.process.name}: {mirror.bucket.name} {sorted(behind)}")
