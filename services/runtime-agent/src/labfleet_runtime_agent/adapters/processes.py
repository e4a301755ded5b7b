"""Processes of this host, held by pidfd so that a reused pid is never taken for another."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

_GROUP_LIMIT_S = 2.0
_SMALL = 4096
_GROUP_STEP_S = 0.02


def started_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if there is none or it is a zombie."""
    try:
        fields = read_proc(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def read_proc(path: str) -> bytes:
    """Read a small file of the kernel; a start reads some, and `Path.read_text` takes five times as long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _SMALL)
    finally:
        os.close(descriptor)


def boot_id() -> str:
    """Identity of this boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_alive(pid: int, ticks: int) -> bool:
    """Whether the process that began at `ticks` still runs under this pid."""
    return ticks != 0 and started_ticks(pid) == ticks


async def kill_group(members: Callable[[], set[int]]) -> None:
    """Kill all processes of a group until it has none; one that cannot die is left after two seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GROUP_LIMIT_S):
            while pids := await asyncio.to_thread(members):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(_GROUP_STEP_S)


class ProcessHandle:
    """One process, until it ends."""

    def __init__(self, pid: int, ticks: int) -> None:
        self.pid = pid
        self.ticks = ticks
        self._fd: int | None = None
        with contextlib.suppress(ProcessLookupError):
            self._fd = os.pidfd_open(pid)
        if not is_alive(pid, ticks):
            self.close()

    def send(self, number: int) -> bool:
        """Send a signal; False if the process is gone."""
        if self._fd is None:
            return False
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        return True

    async def ended(self) -> None:
        """Wait for its end."""
        if self._fd is None:
            return
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        loop.add_reader(self._fd, done.set)
        try:
            await done.wait()
        finally:
            if self._fd is not None:
                loop.remove_reader(self._fd)

    def close(self) -> None:
        """Let go of the process; one that became ours (`orphans`) and has ended is buried."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)


def outside(pid: int, uid: int) -> int:
    """The host's number of a user of a process's user namespace; the user itself where none is mapped."""
    for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines():
        inner, outer, count = (int(word) for word in line.split())
        if inner <= uid < inner + count:
            return outer + uid - inner
    return uid
