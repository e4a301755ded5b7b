"""Processes whose parent ended before them become the agent's children, and are buried here.

A crun that could not run an exec leaves such a process in the container's pid namespace, which cannot end
before somebody has waited for it. The first process of a host does that, but not of every host, nor at once.
"""

import asyncio
import contextlib
import ctypes
import os
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_S = 0.25
_FORGOTTEN_S = 10.0
"""A program that the agent began itself is waited for at once; what is dead so long, nobody waits for."""


def adopt() -> None:
    """Become the parent of all orphans among one's descendants. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


class Orphans:
    """Buries dead children that nobody waits for."""

    def __init__(self) -> None:
        self._dead_since: dict[int, float] = {}

    async def keep(self) -> None:
        """Look for dead ones for ever."""
        while True:
            self.bury()
            await asyncio.sleep(_EVERY_S)

    def bury(self) -> None:
        """Wait for each dead child of a container's namespace, and for those that nobody waits for."""
        try:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                self._dead_since.clear()
                return
        except ChildProcessError:
            return
        now_s = time.monotonic()
        dead = {pid for pid in _children() if _is_dead(pid)}
        self._dead_since = {pid: self._dead_since.get(pid, now_s) for pid in dead}
        for pid, since_s in list(self._dead_since.items()):
            if _is_inside(pid) or now_s - since_s > _FORGOTTEN_S:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _children() -> list[int]:
    """Children of all threads of this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def _is_dead(pid: int) -> bool:
    """Whether a child has ended and waits; one call, as every running container's monitor is a child."""
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return ended is not None


def _is_inside(pid: int) -> bool:
    """Whether a process is of another pid namespace: no program of the agent's own is."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    names = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return len(names.split()) > 2
