"""A process that holds new namespaces of a container's ids until somebody has a descriptor of them.

A process of several threads cannot enter a user namespace itself, and a fork would copy all of it. The
holder shares this process's memory and runs nothing but libc's `sleep` on a stack of its own: a third of
the time that a program takes.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x4000_0000
_CLONE_VM = 0x0000_0100
_CLONE_NEWUSER = 0x1000_0000
_WCLONE = -0x8000_0000
"""`__WCLONE`: wait for a child that tells nobody of its end, so that asyncio never meets it."""
_STACK_BYTES = 64 << 10
_LIFE_S = 10
"""Of a holder whose maker was killed."""

_libc = ctypes.CDLL(None, use_errno=True)
_clone = _libc.clone
_clone.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_sleep = ctypes.cast(_libc.sleep, ctypes.c_void_p)


@contextlib.contextmanager
def held_namespaces(first: int, count: int, more: int = 0) -> Iterator[Path]:
    """Make a user namespace whose ids from 0 are the `count` ones from `first` on, and `more` in it.

    Yields the directory with a file for each, `user` first of all; good within the block. Raises OSError.
    """
    stack = ctypes.create_string_buffer(_STACK_BYTES)
    top = (ctypes.addressof(stack) + _STACK_BYTES) & ~0xF
    holder = _clone(_sleep, top, _CLONE_VM | _CLONE_NEWUSER | more, _LIFE_S)
    if holder < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot make a user namespace: {os.strerror(code)}")
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder}/{name}").write_text(f"0 {first} {count}\n")
        yield Path(f"/proc/{holder}/ns")
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, _WCLONE)
