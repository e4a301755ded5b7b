"""Keeping the kernel's lock on moving processes between control groups warm.

The first move after a pause waits for a whole RCU grace period, some 12 ms (measured); a move within
about the same time after another one takes 0.1 ms. A start knows a while before that it is going to
move a process, so it lets a move of the agent into the group that it is in already do the waiting
(ADR 0010).
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def own_group(root: Path = Path("/sys/fs/cgroup"), table: Path = Path("/proc/self/cgroup")) -> Path:
    """File `cgroup.procs` of the group that this process is in: of `pids` in v1, of the tree in v2."""
    for line in table.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" and (root / "cgroup.controllers").exists():
            return root / path.lstrip("/") / "cgroup.procs"
        if "pids" in controllers.split(","):
            return root / "pids" / path.lstrip("/") / "cgroup.procs"
    return root / "cgroup.procs"


class GroupLock:
    """Warms the lock in a thread of its own; one move at a time."""

    def __init__(self, procs: Path) -> None:
        self._procs = procs
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="group-lock")
        self._is_busy = False

    def warm(self) -> None:
        """Begin a move that changes nothing; returns at once."""
        if not self._is_busy:
            self._is_busy = True
            self._thread.submit(self._move)

    def _move(self) -> None:
        try:
            with contextlib.suppress(OSError):  # then the start waits itself
                self._procs.write_text("0")
        finally:
            self._is_busy = False
