"""A whole fleet on a virtual clock: real cores, thin shells, everything else faked and faulty.

One seed is one run: `run(seed)` draws the faults and the clients' wishes from it, lets things go wrong
for a while, then lets everything heal, and raises `Violation` as soon as an invariant does not hold.

To reproduce a seed that a test printed:

    python -m tests.simulation.world SEED            # prints the whole trace, then the violation
    python -m tests.simulation.world SEED "no hold"  # the same with a planted bug

Each planted bug (`planted.py`) switches off one safeguard of the shells; `test_simulation.py` asserts that
the simulation notices. A seed that once failed goes to `KEPT_SEEDS` there.
"""

import random
import sys
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from tests.simulation import invariants
from tests.simulation.agent import Agent
from tests.simulation.api import UNIT, Api, client, new_container_id
from tests.simulation.bus import Bus
from tests.simulation.faults import Faults
from tests.simulation.loop import Loop, Process, Violation
from tests.simulation.machine import Machine, Truth
from tests.simulation.network import HostNetwork
from tests.simulation.scheduler import Scheduler
from tests.simulation.store import Bucket, Mirror, Store

from labfleet_proto.buckets import LEADERS, LEASES
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import LabfleetError
from labfleet_proto.ids import ContainerId, HostId
from labfleet_proto.resources import Resources

HOSTS = ("h1", "h2", "h3")
CLIENTS = 4
NAMES = [f"web{number}" for number in range(9)]
CAPACITY = Resources(memory_bytes=5 * UNIT, containers=10)
TROUBLE_S = 30.0
REST_S = 100.0
"""Longer than any promise takes: 60 s for a name without a container, 30 s for a hold."""


class World:
    def __init__(
        self, seed: int, bugs: frozenset[str] = frozenset(), faults: Faults | None = None
    ) -> None:
        self.seed, self.bugs = seed, bugs
        self.rng = random.Random(seed)
        self.loop = Loop(self.rng)
        self.faults = faults or Faults.draw(self.rng)
        self.faults.rng = self.rng
        self.bus = Bus(self.loop, self.faults)
        self.store = Store(self.loop, self.faults)
        for name in ("containers", "names", "observed", "hosts", "addresses"):
            self._bucket(name)
        self._bucket("leases", LEASES.ttl_s)
        self._bucket("leaders", LEADERS.ttl_s)
        self.truth = Truth()
        self.machines = {
            name: Machine(self.loop, self.truth, HostId(name), CAPACITY, slots=12) for name in HOSTS
        }
        self.lives: Counter[str] = Counter()
        self.services: dict[str, Any] = {}
        self.acknowledged: list[ContainerRecord] = []
        self.asked_to_start: set[ContainerId] = set()
        self.asked_to_remove: set[ContainerId] = set()
        self._ids = 0
        invariants.watch(self)

    def _bucket(self, name: str, ttl_s: float = 0) -> None:
        bucket = self.store.buckets[name] = Bucket(self.loop, name, ttl_s)
        bucket.lag, bucket.repeats = self.faults.watch_lag, self.faults.watch_repeats_now

    # -- services

    @property
    def api(self) -> Api:
        return self.services["api"]

    @property
    def agents(self) -> list[Agent]:
        return [self.services[f"agent-{name}"] for name in HOSTS]

    def makers(self) -> dict[str, Callable[[Process], Any]]:
        """How each service is started."""
        made: dict[str, Callable[[Process], Any]] = {
            "api": lambda process: Api(self, process),
            "scheduler-a": lambda process: Scheduler(self, process),
            "scheduler-b": lambda process: Scheduler(self, process),
        }
        for name, machine in self.machines.items():
            made[f"agent-{name}"] = lambda process, m=machine: Agent(self, m, process)
            made[f"network-{name}"] = lambda process, m=machine: HostNetwork(self, m, process)
        return made

    def boot(self, name: str) -> None:
        """Start a service; its supervisor starts it again after a crash."""
        self.lives[name] += 1
        process = Process(self.loop, name)
        process.on_crash = lambda: self.loop.at(self.rng.uniform(0.6, 3.0), lambda: self.boot(name))
        self.services[name] = self.makers()[name](process)

    def mirror(self, process: Process, bucket: str) -> Mirror:
        resyncs = "no full pass after a lost watch" not in self.bugs
        return Mirror(self.store, process, bucket, resyncs=resyncs)

    # -- clients

    def new_id(self) -> ContainerId:
        self._ids += 1
        return new_container_id(self._ids)

    def acknowledge_create(self, record: ContainerRecord) -> None:
        self.acknowledged.append(record)

    def acknowledge_start(self, record: ContainerRecord) -> None:
        invariants.check_started(self, record)

    # -- the run

    def run(self) -> None:
        """Let things go wrong, then let them heal. Raises Violation."""
        for name in self.makers():
            self.boot(name)
        self.loop.run(2.0)
        users = Process(self.loop, "clients")
        for _ in range(CLIENTS):
            users.spawn(client(self, NAMES, TROUBLE_S))
        self._plan_faults()
        self.loop.run(TROUBLE_S + 5)
        self.faults.stop()
        self.truth.is_calm = True
        for service in self.services.values():
            service.process.fuse = None
        self.loop.note("world", "faults are over")
        self.loop.run(TROUBLE_S + 5 + REST_S)
        invariants.check_end(self)

    def _plan_faults(self) -> None:
        faults, names = self.faults, sorted(self.services)

        def sometimes(number: int, work: Callable[[], None]) -> None:
            for _ in range(number):
                self.loop.at(self.rng.uniform(0, TROUBLE_S), work)

        sometimes(faults.crashes, lambda: self._light_fuse(self.rng.choice(names)))
        sometimes(faults.watch_losses, lambda: self._lose_watch(self.rng.choice(names)))
        sometimes(faults.freezes, lambda: self._freeze(self.rng.choice(names)))
        sometimes(faults.freezes, lambda: self._freeze(self.rng.choice(names[-2:])))
        sometimes(faults.reboots, lambda: self._reboot(self.rng.choice(HOSTS)))

    def _light_fuse(self, name: str) -> None:
        """Crash a few steps from now; or a leader steps down, so that the next one leads at once."""
        process: Process = self.services[name].process
        if name.startswith("scheduler") and self.rng.random() < 0.5:
            process.crash()
            leaders = self.store.buckets["leaders"]
            lease = leaders.get("scheduler")
            if lease is not None and lease.value == name:
                # Its last writes were sent before, and so are done before.
                self.loop.at(0.6, lambda: leaders.delete("scheduler"))
        else:
            process.fuse = self.rng.randint(1, 40)

    def _lose_watch(self, name: str) -> None:
        if self.services[name].process.is_alive:
            self.rng.choice(self.services[name].mirrors()).lose()

    def _freeze(self, name: str) -> None:
        process: Process = self.services[name].process
        if process.frozen_until_s < self.loop.now:
            self.loop.note(name, "FREEZES")
            process.frozen_until_s = self.loop.now + self.rng.uniform(1, 9)

    def _reboot(self, name: str) -> None:
        self.loop.note(name, "REBOOT")
        for service in (f"agent-{name}", f"network-{name}"):
            self.services[service].process.crash()
        self.machines[name].reboot()


def run(
    seed: int, *bugs: str, faults: Faults | None = None, trace: deque[str] | None = None
) -> None:
    """Run one seed. Raises Violation with the seed and the tail of the trace."""
    world = World(seed, frozenset(bugs), faults)
    if trace is not None:
        world.loop.trace = trace
    try:
        world.run()
    except Violation as exc:
        tail = "\n".join(world.loop.trace)
        text = f"seed {seed}: {exc}\n{tail}\n{world.faults}\nseed {seed}: {exc}"
        violation = Violation(exc.rule, text)
        raise violation from None
    except (LabfleetError, KeyError, AttributeError) as exc:
        exc.add_note(f"seed {seed}\n" + "\n".join(world.loop.trace))
        raise


if __name__ == "__main__":
    whole: deque[str] = deque()
    try:
        run(int(sys.argv[1]), *sys.argv[2:], trace=whole)
    finally:
        sys.stdout.write("\n".join(whole) + "\n")
