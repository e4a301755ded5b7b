"""What goes when a disk fills up: the least used first, and never what is in use."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

_PERCENT = 100


@dataclass(frozen=True)
class Disk:
    """The file system of a host's state."""

    total_bytes: int
    free_bytes: int

    @property
    def used_share(self) -> float:
        """Used part, 0 to 1; what root alone may use counts as used."""
        return 1 - self.free_bytes / self.total_bytes if self.total_bytes else 1.0


@dataclass(frozen=True)
class Marks:
    """Eviction begins above `high_percent` of use and ends below `low_percent`."""

    high_percent: float
    low_percent: float


@dataclass(frozen=True)
class Cached:
    """A thing that could be fetched again."""

    name: str
    used_at_s: float
    """When it was last used, Unix time."""


def wanted_free_bytes(disk: Disk, marks: Marks) -> int:
    """How much is to be free when eviction is over; 0 below the high mark, where nothing is done."""
    if disk.used_share * _PERCENT <= marks.high_percent:
        return 0
    return int(disk.total_bytes * (1 - marks.low_percent / _PERCENT))


def evictable(cached: Iterable[Cached], in_use: Collection[str]) -> list[str]:
    """Names of what may go, least recently used first."""
    free = [each for each in cached if each.name not in in_use]
    return [each.name for each in sorted(free, key=lambda each: (each.used_at_s, each.name))]
