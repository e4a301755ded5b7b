"""Network namespaces that belong to a container: owned by a user namespace of its own ids.

A namespace belongs for ever to the user namespace of the process that made it, and a process of several
threads cannot enter one. So a program makes both; it ends when they are held by a descriptor.
"""

import os
import select
import subprocess
from pathlib import Path

from labfleet_proto.networks import UserIds

_LIMIT_S = 10.0
_ARGV = ("unshare", "--user", "--net", "cat")


def new_namespace(owner: UserIds) -> int:
    """Return a descriptor of a new network namespace, owned by a new user namespace of these ids.

    Raises OSError.
    """
    with subprocess.Popen(
        _ARGV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as holder:
        try:
            if holder.stdin is None or holder.stdout is None:
                raise OSError("no pipes to the holder of a namespace")
            holder.stdin.write(b"1")
            ready, _, _ = select.select([holder.stdout], [], [], _LIMIT_S)
            if not ready or holder.stdout.read(1) != b"1":
                raise OSError("cannot make a user namespace: are they switched off?")
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{holder.pid}/{name}").write_text(f"0 {owner.first} {owner.count}\n")
            return os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            holder.kill()
