"""Keeps the programs of a container from beginning for a moment, by permission events of fanotify(7).

crun sets a terminal's size beside the program that it begins there, and often a moment after it.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_INIT_CLOEXEC, _INIT_CLASS_CONTENT = 0x1, 0x4
_MARK_ADD, _MARK_MOUNT = 0x1, 0x10
_OPEN_EXEC_PERM = 0x0004_0000
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
_closers = ThreadPoolExecutor(32, thread_name_prefix="program-gate")
"""Who waits goes on at once, but the call itself takes up to 20 ms: the kernel waits until nobody looks."""


@contextlib.contextmanager
def closed(root: Path) -> Iterator[None]:
    """Let no program of the mount at `root` begin during the block; all that wait then begin.

    Nobody reads the events: the kernel lets go who waits when the descriptor is closed, also by the end of
    this process. Where it has none to give (128 at once for a user, or it was built without), nobody waits.
    """
    gate = _libc.fanotify_init(_INIT_CLOEXEC | _INIT_CLASS_CONTENT, os.O_RDONLY | os.O_CLOEXEC)
    if gate < 0:
        yield
        return
    try:
        _libc.fanotify_mark(
            gate,
            _MARK_ADD | _MARK_MOUNT,
            ctypes.c_uint64(_OPEN_EXEC_PERM),
            _AT_FDCWD,
            os.fsencode(root),
        )
        yield
    finally:
        _closers.submit(os.close, gate)
