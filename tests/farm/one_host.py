"""What tests of one host's parts need of this machine: directories, layers, a network namespace.

Everything is named after the test's process and taken away again, also after a failure.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from labfleet_cli.machine import CGROUP_ROOT
from labfleet_runtime_agent.adapters import kernel

NAME = f"lftest-{os.getpid()}-parts"
BASE = 1_700_000_000
"""First user id of the test's containers, far from those of fleets."""
BUSYBOX = Path("/usr/bin/busybox")
_APPLETS = ("sh", "cat", "cp", "echo", "id", "ls", "mkdir", "rm", "sleep", "stat", "touch", "true")
_LIMIT_S = 10.0


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A directory on the disk that containers' users can pass through; its mounts go with it."""
    home = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
    home.chmod(0o711)
    try:
        yield home
    finally:
        for path in reversed(kernel.mounted_below(home)):
            kernel.unmount(path)
        shutil.rmtree(home)


def busybox_layer(layer: Path) -> Path:
    """Make a layer from which a shell runs; ids are those inside the container."""
    for name in ("bin", "etc", "proc", "sys", "dev", "root"):
        (layer / name).mkdir(parents=True)
    layer.chmod(0o755)
    (layer / "tmp").mkdir()
    (layer / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, layer / "bin" / "busybox")
    for applet in _APPLETS:
        (layer / "bin" / applet).symlink_to("busybox")
    (layer / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n")
    return layer


@contextlib.contextmanager
def network_namespace() -> Iterator[str]:
    """Path of an empty network namespace, held open by a program."""
    with subprocess.Popen(
        ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as holder:
        try:
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.write(b"1")
            assert holder.stdout.read(1) == b"1"
            yield f"/proc/{holder.pid}/ns/net"
        finally:
            holder.kill()


def cgroup_directories(parent: str) -> list[Path]:
    """Directories of a parent group, in every hierarchy that has it."""
    found = [CGROUP_ROOT / parent, *CGROUP_ROOT.glob(f"*/{parent}")]
    return [path for path in found if path.is_dir() and not path.parent.is_symlink()]


@contextlib.contextmanager
def cgroup_parent() -> Iterator[str]:
    """A parent group for one test; what still runs in it is killed, its groups are removed."""
    try:
        yield f"{NAME}/h1"
    finally:
        end_s = time.monotonic() + _LIMIT_S
        while tops := cgroup_directories(NAME):
            for top in tops:
                _empty(top)
            assert time.monotonic() < end_s, f"groups are left: {tops}"


def _empty(top: Path) -> None:
    """Kill what is in a tree of groups, and remove those that are empty."""
    for group in sorted((top, *(path for path in top.rglob("*") if path.is_dir())), reverse=True):
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                os.kill(int(pid), 9)
            group.rmdir()
