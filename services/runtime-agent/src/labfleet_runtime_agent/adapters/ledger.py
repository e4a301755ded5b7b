"""The ledger: every container's record and last observation, fsynced beside its files.

The store on the bus is never the only copy. An entry is written before its effect is
acknowledged; a half-written file of a crash is never the current one, since the rename comes last.
"""

import contextlib
import os
from pathlib import Path

from pydantic import ValidationError

from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.ids import ContainerId
from labfleet_proto.message import Message

_FILE = "ledger.json"


class RunningProcess(Message):
    """How to find a container's processes again after a restart of the agent."""

    pid: int
    started_ticks: int
    """Field 22 of /proc/<pid>/stat: a reused pid has another."""
    monitor_pid: int
    monitor_started_ticks: int


class LedgerEntry(Message):
    """All that this host knows of one container."""

    record: ContainerRecord
    seen: Observation | None = None
    running: RunningProcess | None = None
    boot_id: str = ""
    """Of the boot in which `running` holds."""


class Ledger:
    """Entries below `<state>/containers/<id>/`."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir / "containers"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._dir.chmod(0o711)

    def path_of(self, container: ContainerId) -> Path:
        """Directory of a container: ledger, bundle, log, writable layer."""
        return self._dir / container

    def save(self, entry: LedgerEntry) -> None:
        """Write an entry durably."""
        home = self.path_of(entry.record.id)
        home.mkdir(mode=0o711, exist_ok=True)
        write_durably(home / _FILE, entry.model_dump_json().encode())

    def load(self) -> list[LedgerEntry]:
        """Read all entries; a directory without a readable one is left to `strangers`."""
        found = []
        for home in sorted(self._dir.iterdir()):
            with contextlib.suppress(OSError, ValidationError):
                found.append(LedgerEntry.model_validate_json((home / _FILE).read_bytes()))
        return found

    def strangers(self, known: set[ContainerId]) -> list[Path]:
        """Directories that belong to no known container."""
        return [home for home in sorted(self._dir.iterdir()) if home.name not in known]

    def forget(self, container: ContainerId) -> None:
        """Remove the entry itself; the directory goes with the container's files."""
        with contextlib.suppress(FileNotFoundError):
            (self.path_of(container) / _FILE).unlink()


def write_durably(path: Path, data: bytes) -> None:
    """Write aside, fsync, rename, fsync the directory."""
    aside = path.with_name(path.name + ".new")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
