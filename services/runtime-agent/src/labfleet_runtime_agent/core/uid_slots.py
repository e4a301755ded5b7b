"""Ranges of user ids: one per container, never given out twice.

Kept in memory; the ledger's entry of a container holds its slot durably, before anything of the
container can run.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from labfleet_proto.errors import NoRoomError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER

_WARM = 64
"""So many ranges take turns, and no more as long as they suffice: what is made ready for one is used soon."""


@dataclass
class UidSlots:
    """Slots of 65,536 ids above `base`."""

    base: int
    count: int
    _taken: dict[ContainerId, int] = field(default_factory=dict)
    _freed: dict[int, int] = field(default_factory=dict)
    """When each slot was given back, counted in releases."""
    _releases: int = 0
    _listeners: list[Callable[[], None]] = field(default_factory=list)

    def take(self, container: ContainerId) -> int:
        """Return the container's slot, the next one if it has none.

        Raises NoRoomError when all slots are taken.
        """
        slot = self._taken.get(container)
        if slot is None:
            slot = next(iter(self.upcoming(1)), None)
            if slot is None:
                raise NoRoomError(f"all {self.count} user-id ranges of this host are taken")
            self._taken[container] = slot
            self._tell()
        return slot

    def share(self, container: ContainerId, other: ContainerId) -> int | None:
        """Return the container's slot, which is the other's if it has none; None if neither has one."""
        slot = self._taken.get(container, self._taken.get(other))
        if slot is not None:
            self._taken[container] = slot
        return slot

    def upcoming(self, most: int) -> list[int]:
        """The slots that are given out next: of the lowest free ones, who is free for the longest time."""
        used = set(self._taken.values())
        free = (slot for slot in range(self.count) if slot not in used)
        warm = list(itertools.islice(free, max(_WARM, most)))
        return sorted(warm, key=lambda slot: (self._freed.get(slot, 0), slot))[:most]

    def listen(self, listener: Callable[[], None]) -> None:
        """Call when a slot is taken or given back."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def restore(self, container: ContainerId, slot: int) -> None:
        """Take up what the ledger says."""
        self._taken[container] = slot

    def release(self, container: ContainerId) -> None:
        """Give the range back; unknown is success."""
        slot = self._taken.pop(container, None)
        if slot is not None and slot not in self._taken.values():
            self._releases += 1
            self._freed[slot] = self._releases
            self._tell()

    def first_id(self, slot: int) -> int:
        """First id of a slot, outside."""
        return self.base + slot * IDS_PER_CONTAINER

    def holders(self) -> set[ContainerId]:
        """Containers with a range."""
        return set(self._taken)
