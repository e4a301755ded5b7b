"""The ledger: every container's record and last observation, fsynced beside its files.

The store on the bus is never the only copy. A half-written file of a crash is never the current one,
since the rename comes last. The newest entry of this boot also lies in the run directory, in memory:
it tells a new life of the agent which processes are the container's, and needs no flush, as those
processes end with the boot, too.
"""

import contextlib
import errno
import shutil
from pathlib import Path

from pydantic import ValidationError

from labfleet_chassis.durable_files import write_durably
from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.ids import ContainerId
from labfleet_proto.message import Message
from labfleet_runtime_agent.adapters import kernel

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
    uid_slot: int | None = None
    """Number of its range of user ids, once it has one."""


class Ledger:
    """Entries below `<state>/containers/<id>/`, and of this boot below `<run>/ledger/`."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._dir = state_dir / "containers"
        self._run = run_dir / "ledger"
        for path, mode in ((self._dir, 0o711), (self._run, 0o700)):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
        kernel.spread_directories(self._dir)

    def path_of(self, container: ContainerId) -> Path:
        """Directory of a container: ledger, log, writable layer."""
        return self._dir / container

    def log_of(self, container: ContainerId) -> Path:
        """File that the container's monitor writes what it prints to."""
        return self._dir / container / "container.log"

    def note(self, entry: LedgerEntry) -> None:
        """Keep an entry for this boot: it outlives the agent, not the machine's power."""
        path = self._run / entry.record.id
        aside = path.with_name(f".{path.name}")
        aside.write_bytes(entry.model_dump_json().encode())
        aside.rename(path)

    def save(self, entry: LedgerEntry) -> None:
        """Write an entry durably; it replaces what was noted before.

        On a full disk it is noted: what fills the disk must be stoppable and removable.
        """
        home = self.path_of(entry.record.id)
        try:
            home.mkdir(mode=0o711, exist_ok=True)
            write_durably(home / _FILE, entry.model_dump_json().encode())
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.note(entry)
            return
        (self._run / entry.record.id).unlink(missing_ok=True)

    def load(self) -> list[LedgerEntry]:
        """Read the newest entry of each container; unreadable ones are left to `strangers`."""
        found: dict[ContainerId, LedgerEntry] = {}
        files = [home / _FILE for home in sorted(self._dir.iterdir())]
        for file in (*files, *sorted(self._run.iterdir())):
            with contextlib.suppress(OSError, ValidationError):
                entry = LedgerEntry.model_validate_json(file.read_bytes())
                known = found.get(entry.record.id)
                if known is None or _order(known) <= _order(entry):
                    found[entry.record.id] = entry
        return list(found.values())

    def strangers(self, known: set[ContainerId]) -> list[Path]:
        """Directories that belong to no known container."""
        return [home for home in sorted(self._dir.iterdir()) if home.name not in known]

    def forget(self, container: ContainerId) -> None:
        """Remove the entry of a container whose files are gone, and its directory."""
        (self._run / container).unlink(missing_ok=True)
        shutil.rmtree(self.path_of(container), ignore_errors=True)


def _order(entry: LedgerEntry) -> tuple[int, int, int]:
    return entry.seen.order() if entry.seen is not None else (-1, 0, 0)
