"""Capacity of this host: what is free, and holds that lapse. The agent has the last word."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import ContainerId
from labfleet_proto.placement import HoldAnswer, takes_room
from labfleet_proto.resources import Resources, lacking

HOLD_LIFE_S = 30.0


def used(records: Iterable[ContainerRecord], seen: Mapping[ContainerId, Observation]) -> Resources:
    """Sum of what the host's containers take."""
    total = Resources()
    for record in records:
        if takes_room(record, seen.get(record.id)):
            total += record.spec.resources()
    return total


def check_cpus(asked: str, there: frozenset[int]) -> None:
    """Raise InvalidRequestError, in docker's words, for numbers of CPUs that the host lacks."""
    for part in asked.split(",") if asked else ():
        first, _, last = part.partition("-")
        if not set(range(int(first), int(last or first) + 1)) <= there:
            text = ",".join(str(number) for number in sorted(there))
            raise InvalidRequestError(
                f"Requested CPUs are not available - requested {asked}, available: {text}"
            )


@dataclass
class Holds:
    """Capacity set aside for containers whose record has not arrived yet."""

    _until_s: dict[ContainerId, tuple[float, Resources]] = field(default_factory=dict)

    def ask(
        self, container: ContainerId, request: Resources, free: Resources, now_s: float
    ) -> HoldAnswer:
        """Grant or refuse; asking again for the same container renews. `free` is before holds."""
        self.lapse(now_s)
        left = free - self.total(except_for=container)
        missing = lacking(request, left)
        if missing:
            return HoldAnswer(is_granted=False, lacking=missing, free=left)
        self._until_s[container] = (now_s + HOLD_LIFE_S, request)
        return HoldAnswer(is_granted=True, free=left - request)

    def arrived(self, container: ContainerId) -> None:
        """Its record is here and counts by itself now."""
        self._until_s.pop(container, None)

    def total(self, except_for: ContainerId | None = None) -> Resources:
        """Sum of the holds, lapsed ones included until the next question."""
        total = Resources()
        for container, (_, request) in self._until_s.items():
            if container != except_for:
                total += request
        return total

    def lapse(self, now_s: float) -> None:
        """Drop the holds whose time is over."""
        self._until_s = {
            container: hold for container, hold in self._until_s.items() if hold[0] > now_s
        }
