"""Planted bugs: each switches off one safeguard of the shells, and one rule notices.

`seed` is one that notices; it is where the search begins, so that a change of the simulation costs only
time. `faults` makes the run rich in what the safeguard is for.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.simulation.invariants import BACK, GOAL, LEFT, NAMES, PORTS, ROOM, VIEW

ONCE = "an attempt runs once"
ADDRESS = "an address is given out once"
NETWORK = "what runs keeps its network"


@dataclass(frozen=True)
class Planted:
    rule: str
    seed: int
    faults: dict[str, Any] = field(default_factory=dict)


_LATE = {"late": 0.3, "repeated": 0.8, "lost": 0.0, "dropped_kinds": frozenset()}
_FROZEN = {
    "freezes": 12,
    "crashes": 0,
    "lost": 0.0,
    "late": 0.2,
    "store_slow": 0.0,
    "policies": 0.0,
}

BUGS: dict[str, Planted] = {
    # the agent
    "no generation check": Planted(GOAL, 7, _LATE),
    "no ledger before start": Planted(ONCE, 1),
    "unknown ends are started again": Planted(ONCE, 8),
    "the end is not told again": Planted(LEFT, 80),
    "observations out of order": Planted(BACK, 1),
    "attempt of a newer record": Planted(NETWORK, 30),
    "late records begin anew": Planted(ONCE, 100),
    "agent believes an absence": Planted(BACK, 100),
    "lapsed holds stay": Planted(LEFT, 0),
    "a restart is no new run": Planted(ONCE, 0),
    "due restarts are not opened": Planted(LEFT, 237),
    "the wait is forgotten": Planted(GOAL, 0),
    # the network
    "network believes an absence": Planted(NETWORK, 296),
    "addresses are deleted unseen": Planted(ADDRESS, 2),
    "a second address stays": Planted(LEFT, 57),
    "late network jobs are served": Planted(NETWORK, 6, _LATE),
    # the scheduler
    "no hold": Planted(ROOM, 2),
    "names are dropped at once": Planted(NAMES, 0),
    "a new claim is dropped": Planted(NAMES, 6271, _FROZEN),
    "given ports are forgotten": Planted(PORTS, 9),
    "a repeated place is a new one": Planted(NAMES, 14),
    "observation dropped before its record": Planted(LEFT, 2),
    "scheduler believes an absence": Planted(LEFT, 72),
    # the mirrors
    "no full pass after a lost watch": Planted(VIEW, 0),
}
