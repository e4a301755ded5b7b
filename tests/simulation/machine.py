"""A fake machine: what is true of a host whatever its services believe, and checked at every change.

Its disk survives everything; processes and network namespaces survive the services, not a reboot.
"""

from dataclasses import dataclass, field

from tests.simulation.loop import Loop, Signal, Violation

from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.errors import CommandNotRunnableError, NoRoomError, PortInUseError
from labfleet_proto.ids import ContainerId, HostId
from labfleet_proto.resources import Resources, fits
from labfleet_proto.restarts import Restart

LIFE, GRACE, BROKEN, CODE = "life_s", "grace_s", "is_broken", "exit_code"
"""Labels that tell the fake runtime how a container behaves."""


@dataclass(frozen=True)
class LedgerEntry:
    """As the agent's ledger keeps it."""

    record: ContainerRecord
    seen: Observation | None
    pid: int = 0
    boot: int = 0
    """In which it was written; 0: not yet."""


@dataclass(eq=False)
class Proc:
    """What crun created; `has_begun` when it was told to start."""

    pid: int
    record: ContainerRecord
    attempt: int
    run: int
    ended: Signal
    has_begun: bool = False
    is_alive: bool = True


@dataclass(frozen=True)
class Namespace:
    """A container's network: an address, and host ports that lead there."""

    run: int
    address: str
    ports: frozenset[int]


@dataclass
class Truth:
    """Facts of the whole fleet that no service can see."""

    machines: dict[HostId, "Machine"] = field(default_factory=dict)
    begun: set[tuple[ContainerId, int]] = field(default_factory=set)
    """Every attempt that ever ran."""
    runs: set[tuple[ContainerId, int]] = field(default_factory=set)
    """Every run, of an attempt or of its restart policy."""
    is_calm: bool = False
    """Nothing that a policy would run again ends by itself any more, so that there is an end to look at."""


class Machine:
    def __init__(
        self, loop: Loop, truth: Truth, name: HostId, capacity: Resources, slots: int
    ) -> None:
        self.loop, self.truth, self.name = loop, truth, name
        self.capacity = capacity
        self.boot = 1
        self.ledger: dict[ContainerId, LedgerEntry] = {}
        self.layers: dict[ContainerId, int] = {}
        """Writable layers on the disk, owned by the user ids of a slot."""
        self.slots: dict[ContainerId, int] = {}
        self.exit_codes: dict[ContainerId, int] = {}
        self.procs: dict[ContainerId, Proc] = {}
        self.spaces: dict[ContainerId, Namespace] = {}
        self._slot_count = slots
        self._pid = 0
        truth.machines[name] = self

    def running(self) -> list[Proc]:
        return [proc for proc in self.procs.values() if proc.is_alive and proc.has_begun]

    # -- runtime

    def create(self, record: ContainerRecord, attempt: int, run: int) -> Proc:
        """The command does not run yet. Raises CommandNotRunnableError."""
        if record.spec.labels.get(BROKEN):
            raise CommandNotRunnableError("executable file not found in $PATH")
        if record.id in self.procs:
            raise Violation("a container has two processes", record.id)
        self._pid += 1
        self.exit_codes.pop(record.id, None)
        proc = Proc(self._pid, record, attempt, run, Signal(self.loop))
        self.procs[record.id] = proc
        return proc

    def start(self, container: ContainerId) -> None:
        """Run the command; it may end by itself later."""
        proc = self.procs[container]
        if (container, proc.run) in self.truth.runs:
            raise Violation("an attempt runs once", f"{container} run {proc.run} again")
        for machine in self.truth.machines.values():
            if any(other.record.id == container for other in machine.running()):
                raise Violation("a container runs on one host", f"{container} on {machine.name}")
        self.truth.begun.add((container, proc.attempt))
        self.truth.runs.add((container, proc.run))
        proc.has_begun = True
        total = sum((each.record.spec.resources() for each in self.running()), Resources())
        if not fits(total, self.capacity):
            raise Violation("capacity is not exceeded", f"{self.name} runs {total}")
        life = proc.record.spec.labels.get(LIFE)
        is_kept = self.truth.is_calm and proc.record.spec.restart.name is not Restart.NO
        if life and not is_kept:
            code = int(proc.record.spec.labels.get(CODE, "0"))
            self.loop.at(float(life), lambda: self._end(proc, code))

    def signal(self, proc: Proc, *, is_kill: bool) -> None:
        """A stubborn container takes its time, and dies at once only of SIGKILL."""
        grace = 0.02 if is_kill else float(proc.record.spec.labels.get(GRACE, "0.1"))
        self.loop.at(grace, lambda: self._end(proc, 137 if is_kill else 143))

    def delete(self, container: ContainerId) -> None:
        """Kill and forget; again is nothing."""
        proc = self.procs.pop(container, None)
        if proc is not None and proc.is_alive:
            proc.is_alive = False
            proc.ended.set()

    def _end(self, proc: Proc, code: int) -> None:
        if proc.is_alive:
            proc.is_alive = False
            self.exit_codes[proc.record.id] = code
            proc.ended.set()

    def reboot(self) -> None:
        self.boot += 1
        for proc in self.procs.values():
            proc.is_alive = False
        self.procs.clear()
        self.spaces.clear()

    # -- disk

    def take_slot(self, container: ContainerId) -> int:
        if container not in self.slots:
            free = set(range(self._slot_count)) - set(self.slots.values())
            if not free:
                raise NoRoomError("all user-id ranges of this host are taken")
            self.slots[container] = min(free)
        return self.slots[container]

    def unpack(self, container: ContainerId, slot: int) -> None:
        for other, owner in self.layers.items():
            if owner == slot and other != container:
                raise Violation("a user-id range is given out once", f"{slot} of {other}")
        self.layers[container] = slot

    # -- network

    def plug(self, container: ContainerId, space: Namespace) -> None:
        """Raises PortInUseError."""
        for machine in self.truth.machines.values():
            for other, there in machine.spaces.items():
                if other != container and there.address == space.address:
                    text = f"{space.address} of {other} also to {container}"
                    raise Violation("an address is given out once", text)
        for other, there in self.spaces.items():
            if other != container and there.ports & space.ports:
                raise PortInUseError(f"ports {set(there.ports & space.ports)} are taken by {other}")
        self.spaces[container] = space

    def unplug(self, container: ContainerId, why: str) -> None:
        proc = self.procs.get(container)
        if proc is not None and proc.is_alive and proc.has_begun and container in self.spaces:
            raise Violation("what runs keeps its network", f"{container} on {self.name}: {why}")
        self.spaces.pop(container, None)
