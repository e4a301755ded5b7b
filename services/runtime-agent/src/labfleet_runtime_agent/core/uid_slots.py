"""Ranges of user ids: one per container, never given out twice.

Kept in memory; the ledger's entry of a container holds its slot durably, before anything of the
container can run.
"""

from dataclasses import dataclass, field

from labfleet_proto.errors import NoRoomError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER


@dataclass
class UidSlots:
    """Slots of 65,536 ids above `base`."""

    base: int
    count: int
    _taken: dict[ContainerId, int] = field(default_factory=dict)

    def take(self, container: ContainerId) -> int:
        """Return the container's slot, the lowest free one if it has none.

        Raises NoRoomError when all slots are taken.
        """
        slot = self._taken.get(container)
        if slot is None:
            used = set(self._taken.values())
            slot = next((number for number in range(self.count) if number not in used), None)
            if slot is None:
                raise NoRoomError(f"all {self.count} user-id ranges of this host are taken")
            self._taken[container] = slot
        return slot

    def restore(self, container: ContainerId, slot: int) -> None:
        """Take up what the ledger says."""
        self._taken[container] = slot

    def release(self, container: ContainerId) -> None:
        """Give the range back; unknown is success."""
        self._taken.pop(container, None)

    def first_id(self, slot: int) -> int:
        """First id of a slot, outside."""
        return self.base + slot * IDS_PER_CONTAINER

    def holders(self) -> set[ContainerId]:
        """Containers with a range."""
        return set(self._taken)
