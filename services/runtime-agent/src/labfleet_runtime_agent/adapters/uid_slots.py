"""Ranges of user ids: one per container, never given out twice."""

import json
from pathlib import Path

from labfleet_proto.errors import NoRoomError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters.ledger import write_durably
from labfleet_runtime_agent.core.spec import IDS_PER_CONTAINER


class UidSlots:
    """Slots of 65,536 ids above a base, kept in one fsynced file."""

    def __init__(self, state_dir: Path, base: int, count: int) -> None:
        self._file = state_dir / "uid-slots.json"
        self._base = base
        self._count = count
        self._taken: dict[ContainerId, int] = {}
        if self._file.exists():
            self._taken = json.loads(self._file.read_text())

    def take(self, container: ContainerId) -> int:
        """Return the first id of the container's range, taking one if it has none.

        Raises NoRoomError when all slots are taken.
        """
        slot = self._taken.get(container)
        if slot is None:
            used = set(self._taken.values())
            free = (number for number in range(self._count) if number not in used)
            slot = next(free, None)
            if slot is None:
                raise NoRoomError(f"all {self._count} user-id ranges of this host are taken")
            self._taken[container] = slot
            self._save()
        return self._base + slot * IDS_PER_CONTAINER

    def release(self, container: ContainerId) -> None:
        """Give the range back; unknown is success."""
        if self._taken.pop(container, None) is not None:
            self._save()

    def holders(self) -> set[ContainerId]:
        """Containers with a range."""
        return set(self._taken)

    def _save(self) -> None:
        write_durably(self._file, json.dumps(self._taken).encode())
