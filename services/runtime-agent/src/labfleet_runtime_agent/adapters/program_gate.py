"""Keeps the programs of a container from beginning for a moment, by permission events of fanotify(7).

crun sets a terminal's size beside the program that it begins there, and often a moment after it.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

_INIT_CLOEXEC, _INIT_CLASS_CONTENT = 0x1, 0x4
_MARK_ADD, _MARK_MOUNT = 0x1, 0x10
_OPEN_EXEC_PERM = 0x0004_0000
_libc = ctypes.CDLL(None, use_errno=True)
_closers = ThreadPoolExecutor(32, thread_name_prefix="program-gate")
"""Who waits goes on at once, but the call itself takes up to 20 ms: the kernel waits until nobody looks."""


@contextlib.contextmanager
def closed(pid: int) -> Iterator[None]:
    """Let no program begin on the root mount of a process during the block; all that wait then begin.

    Nobody reads the events: the kernel lets go who waits when the descriptor is closed, also by the end of
    this process. Nobody waits at all where the kernel has no descriptor to give (128 at once for a user), where
    the process is gone, and where it has moved to this process's own mounts: programs of the host begin there.
    """
    gate = _libc.fanotify_init(_INIT_CLOEXEC | _INIT_CLASS_CONTENT, os.O_RDONLY | os.O_CLOEXEC)
    if gate < 0:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            _mark(gate, pid)
        yield
    finally:
        _closers.submit(os.close, gate)


def _mark(gate: int, pid: int) -> None:
    """Ask to be asked before a program begins on the process's root mount. Raises OSError."""
    process = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        theirs, ours = os.stat("ns/mnt", dir_fd=process), os.stat("/proc/self/ns/mnt")  # noqa: PTH116
        if theirs.st_ino != ours.st_ino:
            mask = ctypes.c_uint64(_OPEN_EXEC_PERM)
            _libc.fanotify_mark(gate, _MARK_ADD | _MARK_MOUNT, mask, process, b"root")
    finally:
        os.close(process)
