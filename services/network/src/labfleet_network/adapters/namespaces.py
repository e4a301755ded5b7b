"""Network namespaces: made, named by a bind mount, entered by a thread of their own."""

import contextlib
import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from labfleet_proto.errors import InternalError

_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_MS_RDONLY_NOSUID_NODEV_NOEXEC = 1 | 2 | 4 | 8

_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")

_SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}
"""The namespace belongs to the first user namespace, so a container's root has no power over it:
these let it bind port 80 and ping."""


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _bind(source: str, target: Path) -> None:
    _check(
        _libc.mount(source.encode(), os.fsencode(target), None, _MS_BIND, None), f"bind {target}"
    )


def unmount(target: Path) -> None:
    """Detach a mount and remove its mount point; absent is success."""
    while _libc.umount2(os.fsencode(target), _MNT_DETACH) == 0:
        continue
    with contextlib.suppress(FileNotFoundError):
        target.rmdir() if target.is_dir() else target.unlink()


class Namespaces:
    """Namespaces of this host's containers, below one directory.

    All work happens in one thread that may wander between namespaces; it always comes home.
    """

    def __init__(self, directory: Path) -> None:
        self._dir = directory / "netns"
        self._sys = directory / "sysfs"
        for path in (directory, self._dir, self._sys):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o711)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")

    def path(self, name: str) -> Path:
        """Where a namespace is bound, present or not."""
        return self._dir / name

    def sysfs(self, name: str) -> Path:
        """Where a namespace's own /sys is mounted, present or not."""
        return self._sys / name

    def names(self) -> set[str]:
        """All namespaces below the directory."""
        return {path.name for path in self._dir.iterdir()}

    def make(self, name: str) -> None:
        """Make a namespace with its settings and its sysfs. For `thread`. Raises InternalError."""
        target = self.path(name)
        target.touch()
        try:
            _check(_libc.unshare(_CLONE_NEWNET), "new network namespace")
            try:
                for key, value in _SYSCTLS.items():
                    with contextlib.suppress(FileNotFoundError):
                        Path(f"/proc/sys/{key}").write_text(value)
                _bind("/proc/thread-self/ns/net", target)
                self._mount_sysfs(name)
            finally:
                self._go_home()
        except OSError as exc:
            self.remove(name)
            raise InternalError(f"cannot make network namespace {name}: {exc}") from exc

    def _mount_sysfs(self, name: str) -> None:
        """A /sys that shows this namespace's devices only; without one the container gets none."""
        target = self.sysfs(name)
        target.mkdir(exist_ok=True)
        result = _libc.mount(
            b"sysfs", os.fsencode(target), b"sysfs", _MS_RDONLY_NOSUID_NODEV_NOEXEC, None
        )
        if result < 0:
            target.rmdir()

    def rename(self, old: str, new: str) -> None:
        """Give a ready namespace to a container. For `thread`."""
        target = self.path(new)
        target.touch()
        _bind(str(self.path(old)), target)
        unmount(self.path(old))
        if self.sysfs(old).is_dir():
            self.sysfs(new).mkdir(exist_ok=True)
            _bind(str(self.sysfs(old)), self.sysfs(new))
            unmount(self.sysfs(old))

    def inside(self, name: str, work: Callable[[], T]) -> T:
        """Run `work` inside a namespace. For `thread`. Raises OSError."""
        fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(fd, _CLONE_NEWNET), f"enter {name}")
            try:
                return work()
            finally:
                self._go_home()
        finally:
            os.close(fd)

    def _go_home(self) -> None:
        _check(_libc.setns(self._home, _CLONE_NEWNET), "leave network namespace")

    def remove(self, name: str) -> None:
        """Let the kernel close a namespace, its links with it; absent is success."""
        unmount(self.sysfs(name))
        unmount(self.path(name))

    def close(self) -> None:
        """End the thread."""
        self.thread.shutdown(wait=False)
        os.close(self._home)
