"""Where a container goes: filters, then a score, and a sentence for every outcome."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import ContainerId, HostId
from labfleet_proto.resources import Resources, lacking

Score = Literal["spread", "pack"]

MISSING_WEIGHT_PER_GIB = 0.1
"""A GiB that a host would have to fetch first counts as much as so much more load, from 0 to 1."""
MOST_MISSING_WEIGHT = 0.2
"""A busy host is not filled up for a large image: another fetches it from its neighbours in a while."""

_EQUAL_LOADS = 0.0005
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True)
class HostSnapshot:
    """A host as the scheduler sees it now; `free` already lacks what was placed since."""

    id: HostId
    capacity: Resources
    free: Resources
    labels: dict[str, str]
    is_alive: bool = True
    is_drained: bool = False
    epoch: int = 0
    taken_ports: frozenset[tuple[str, int]] = frozenset()
    missing_bytes: int = 0
    """Of the layers of the image that is asked for, compressed."""


@dataclass(frozen=True)
class Constraint:
    """`key==value` or `key!=value`; the key `host` means the host's id."""

    key: str
    value: str
    is_equal: bool

    def holds(self, host: HostSnapshot) -> bool:
        """Whether the host satisfies it; an absent label equals nothing."""
        there = host.id if self.key == "host" else host.labels.get(self.key)
        return (there == self.value) is self.is_equal


@dataclass(frozen=True)
class Request:
    """What is to be placed."""

    container: ContainerId
    resources: Resources
    constraints: tuple[Constraint, ...] = ()
    ports: frozenset[tuple[str, int]] = frozenset()
    homes: frozenset[HostId] = frozenset()
    """Home hosts of its volumes; more than one cannot be satisfied."""


@dataclass(frozen=True)
class Placed:
    """The hosts that can take it, best first, and why the best is."""

    order: tuple[HostId, ...]
    reason: str


@dataclass(frozen=True)
class Unplaceable:
    """Nobody can take it; the explanation counts the hosts per reason."""

    explanation: str


def parse_constraint(text: str) -> Constraint:
    """Parse one constraint. Raises InvalidRequestError that shows the two forms."""
    for sign, is_equal in (("==", True), ("!=", False)):
        key, found, value = text.partition(sign)
        if found and key.strip() and value.strip():
            return Constraint(key.strip(), value.strip(), is_equal)
    raise InvalidRequestError(
        f"constraint {text!r} is not of the form label==value, label!=value or host==name"
    )


def obstacle(request: Request, host: HostSnapshot) -> str | None:
    """Return why the host cannot take it, as a class of reasons; None if it can."""
    if not host.is_alive:
        return "lost"
    if host.is_drained:
        return "drained"
    for constraint in request.constraints:
        if not constraint.holds(host):
            sign = "==" if constraint.is_equal else "!="
            return f"constraint {constraint.key}{sign}{constraint.value}"
    if request.homes - {host.id}:
        return f"volume lives on {', '.join(sorted(request.homes))}"
    clash = request.ports & host.taken_ports
    if clash:
        return (
            "port "
            + ", ".join(f"{port}/{protocol}" for protocol, port in sorted(clash))
            + " in use"
        )
    missing = lacking(request.resources, host.free)
    return f"too little {' and '.join(missing)}" if missing else None


def load_after(request: Request, host: HostSnapshot) -> float:
    """Share of the host's scarcest resource that would be used, 0 to 1."""
    left = host.free - request.resources
    shares = [
        1 - left.memory_bytes / host.capacity.memory_bytes if host.capacity.memory_bytes else 1.0,
        1 - left.cpu_millis / host.capacity.cpu_millis if host.capacity.cpu_millis else 1.0,
    ]
    return max(shares)


def missing_weight(host: HostSnapshot) -> float:
    """How much more load the image's missing bytes count as."""
    return min(host.missing_bytes / (1 << 30) * MISSING_WEIGHT_PER_GIB, MOST_MISSING_WEIGHT)


def place(
    request: Request, hosts: Sequence[HostSnapshot], score: Score = "spread"
) -> Placed | Unplaceable:
    """Choose among `hosts`: the least loaded (spread) or the fullest that fits (pack).

    What a host lacks of the image counts against it (`missing_weight`). Ties go to the host that lacks
    less of the image, then to the one with fewer containers, then by a hash of container and host, so that equal
    hosts share the work and the same question has the same answer.
    """
    obstacles = {host.id: obstacle(request, host) for host in hosts}
    good = [host for host in hosts if obstacles[host.id] is None]
    if not good:
        return Unplaceable(explain(request, hosts, obstacles))
    sign = 1 if score == "spread" else -1

    def rank(host: HostSnapshot) -> tuple[float, int, int, str]:
        tie = hashlib.sha256(f"{request.container} {host.id}".encode()).hexdigest()
        used = host.capacity.containers - host.free.containers
        score = sign * load_after(request, host) + missing_weight(host)
        return (round(score, 3), host.missing_bytes, sign * used, tie)

    ranked = sorted(good, key=rank)
    best = ranked[0]
    out = "; ".join(f"{name}: {why}" for name, why in sorted(obstacles.items()) if why)
    others = f" ({out})" if out else ""
    loads = [sign * load_after(request, host) for host in good]
    is_extreme = sign * load_after(request, best) <= min(loads) + _EQUAL_LOADS
    word = ("least" if sign > 0 else "most") if is_extreme else "best"
    reason = (
        f"{score}: {best.id} at {load_after(request, best):.0%} load{_about_image(best, good)}, "
        f"{word} of {len(good)} that fit{others}"
    )
    return Placed(tuple(host.id for host in ranked), reason)


def _about_image(best: HostSnapshot, hosts: Sequence[HostSnapshot]) -> str:
    """What the image had to do with the choice; nothing where all hosts are alike."""
    if len({host.missing_bytes for host in hosts}) == 1:
        return ""
    return f" with {human(best.missing_bytes)} of the image to fetch"


def explain(
    request: Request, hosts: Sequence[HostSnapshot], obstacles: dict[HostId, str | None]
) -> str:
    """Return the refusal: how many hosts fall out for which reason, and how much would be needed."""
    if not hosts:
        return "no host fits: the fleet has no hosts"
    counts = Counter(why for why in obstacles.values() if why)
    parts = []
    for why, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        noun = "host" if number == 1 else "hosts"
        those = [host for host in hosts if obstacles[host.id] == why]
        parts.append(f"{number} {noun}: {why}{_detail(request, those, why)}")
    return "no host fits: " + "; ".join(parts)


def _detail(request: Request, hosts: Sequence[HostSnapshot], why: str) -> str:
    if not why.startswith("too little"):
        return ""
    facts = []
    if "memory" in why:
        most = max(host.free.memory_bytes for host in hosts)
        facts.append(f"{human(request.resources.memory_bytes)} memory, most free {human(most)}")
    if "cpu" in why:
        millis = max(host.free.cpu_millis for host in hosts)
        facts.append(f"{request.resources.cpu_millis / 1000:g} cpus, most free {millis / 1000:g}")
    return f" (needs {'; '.join(facts)})" if facts else ""


def human(size: int) -> str:
    """Return a size for people."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{round(size / unit, 2):g} {name}"
    return f"{max(size, 0)} B"
