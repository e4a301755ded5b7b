"""Network namespaces that belong to a container: owned by a user namespace of its own ids.

A namespace belongs for ever to the user namespace of the process that made it, and a process of several
threads cannot enter one. So a process is made for it that lives until both are held by a descriptor.
"""

import ctypes
import os
import signal
from pathlib import Path

from labfleet_proto.networks import UserIds

_CLONE_VM = 0x0000_0100
_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_WCLONE = -0x8000_0000
"""`__WCLONE`: wait for a child that tells nobody of its end, so that asyncio never meets it."""
_STACK_BYTES = 64 << 10
_LIFE_S = 10
"""Of a holder whose maker was killed."""

_libc = ctypes.CDLL(None, use_errno=True)
_clone = _libc.clone
_clone.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_sleep = ctypes.cast(_libc.sleep, ctypes.c_void_p)


def new_namespace(owner: UserIds) -> int:
    """Return a descriptor of a new network namespace, owned by a new user namespace of these ids.

    The holder shares this process's memory and runs nothing but libc's `sleep` on a stack of its own:
    a third of the time that a program takes. Raises OSError.
    """
    stack = ctypes.create_string_buffer(_STACK_BYTES)
    top = (ctypes.addressof(stack) + _STACK_BYTES) & ~0xF
    holder = _clone(_sleep, top, _CLONE_VM | _CLONE_NEWUSER | _CLONE_NEWNET, _LIFE_S)
    if holder < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot make a user namespace: {os.strerror(code)}")
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder}/{name}").write_text(f"0 {owner.first} {owner.count}\n")
        return os.open(f"/proc/{holder}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, _WCLONE)
