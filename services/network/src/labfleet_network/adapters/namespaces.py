"""Network namespaces: made in idle time, kept by a bind mount, entered by a thread of their own."""

import contextlib
import ctypes
import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from labfleet_network.adapters import rtnetlink
from labfleet_network.adapters.rtnetlink import Interface
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
"""Let any user of a container bind port 80 and ping, as docker does."""


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

    A namespace is made in idle time under a token; giving it to a container is one symbolic link,
    since a mount costs milliseconds while others are mounted. All work happens in one thread that
    may wander between namespaces; it always comes home.
    """

    def __init__(self, directory: Path) -> None:
        self._dir = directory / "netns"
        self._sys = directory / "sysfs"
        self._names = directory / "names"
        for path in (directory, self._dir, self._sys, self._names):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o711)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")

    def _token(self, name: str) -> str:
        """Token of a container's namespace; empty if it has none."""
        try:
            return str((self._names / name).readlink())
        except FileNotFoundError:
            return ""

    def path(self, name: str) -> Path | None:
        """Where a container's namespace is bound; None if it has none."""
        token = self._token(name)
        return self._dir / token if token and (self._dir / token).exists() else None

    def sysfs(self, name: str) -> Path | None:
        """Where a namespace's own /sys is mounted; None if the kernel refused that."""
        token = self._token(name)
        return self._sys / token if token and (self._sys / token).is_dir() else None

    def names(self) -> set[str]:
        """Names that have a namespace."""
        return set(os.listdir(self._names))  # noqa: PTH208 - names, not paths

    def spares(self) -> set[str]:
        """Tokens of namespaces that were given to nobody."""
        given = {self._token(name) for name in self.names()}
        return {path.name for path in self._dir.iterdir()} - given

    def make(self) -> str:
        """Make a namespace of the host's, with its settings and its sysfs; return its token.

        For `thread`. Raises InternalError.
        """
        return self._make(lambda: _libc.unshare(_CLONE_NEWNET))

    def keep(self, namespace: int) -> str:
        """Keep a new namespace, with its settings and its sysfs; return its token.

        For `thread`. Raises InternalError.
        """
        return self._make(lambda: _libc.setns(namespace, _CLONE_NEWNET))

    def _make(self, enter: Callable[[], int]) -> str:
        token = secrets.token_hex(8)
        target = self._dir / token
        target.touch()
        try:
            _check(enter(), "new network namespace")
            try:
                for key, value in _SYSCTLS.items():
                    with contextlib.suppress(FileNotFoundError):
                        Path(f"/proc/sys/{key}").write_text(value)
                rtnetlink.loopback_up()
                _bind("/proc/thread-self/ns/net", target)
                self._mount_sysfs(token)
            finally:
                self._go_home()
        except (OSError, InternalError) as exc:
            self.drop(token)
            raise InternalError(f"cannot make a network namespace: {exc}") from exc
        return token

    def _mount_sysfs(self, token: str) -> None:
        """A /sys that shows this namespace's devices only; without one the container gets none."""
        target = self._sys / token
        target.mkdir(exist_ok=True)
        result = _libc.mount(
            b"sysfs", os.fsencode(target), b"sysfs", _MS_RDONLY_NOSUID_NODEV_NOEXEC, None
        )
        if result < 0:
            target.rmdir()

    def give(self, token: str, name: str) -> None:
        """Give a ready namespace to a container that has none."""
        (self._names / name).symlink_to(token)

    def inside(self, name: str, work: Callable[[], T]) -> T:
        """Run `work` inside a namespace. For `thread`. Raises OSError."""
        fd = os.open(self._dir / self._token(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(fd, _CLONE_NEWNET), f"enter {name}")
            try:
                return work()
            finally:
                self._go_home()
        finally:
            os.close(fd)

    def plug(self, name: str, interfaces: Sequence[Interface]) -> None:
        """Make interfaces into a namespace; they have no addresses yet. Raises InternalError."""
        namespace = os.open(self._dir / self._token(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            rtnetlink.plug(interfaces, namespace)
        finally:
            os.close(namespace)

    def _go_home(self) -> None:
        _check(_libc.setns(self._home, _CLONE_NEWNET), "leave network namespace")

    def remove(self, name: str) -> None:
        """Let the kernel close a container's namespace, its links with it; absent is success."""
        token = self._token(name)
        if token:
            self.drop(token)
            (self._names / name).unlink(missing_ok=True)

    def drop(self, token: str) -> None:
        """Let the kernel close a namespace that belongs to nobody; absent is success."""
        unmount(self._sys / token)
        unmount(self._dir / token)

    def close(self) -> None:
        """End the thread."""
        self.thread.shutdown(wait=False)
        os.close(self._home)
