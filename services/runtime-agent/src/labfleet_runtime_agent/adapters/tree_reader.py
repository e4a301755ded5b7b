"""Reading a tree into a tar stream. Nothing is followed: each entry is opened beside its parent."""

import contextlib
import errno
import os
import stat
import sys
import tarfile
from typing import IO

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.core.changes import capability_inside, inside

_BLOCK = 1 << 20
_DEEPEST = 2000
_XATTR_PREFIX = "SCHILY.xattr."
_CAPABILITY = "security.capability"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def allow_depth() -> None:
    """Let a deep tree be read: a container may make directories in directories."""
    sys.setrecursionlimit(8 * _DEEPEST)


class TreeReader:
    """Writes files and whole trees into a tar stream.

    Args:
        output: Where the tar goes.
        base: What is taken from every id, where the files are not seen through the container's
            user namespace.
    """

    def __init__(self, output: IO[bytes], base: int = 0) -> None:
        self._tar = tarfile.open(  # noqa: SIM115 - closed by close()
            fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK
        )
        self._tar.copybufsize = _BLOCK  # type: ignore[attr-defined]  # not in the stubs
        self._base = base
        self._links: dict[tuple[int, int], str] = {}

    def add(self, parent_fd: int, leaf: str, name: str, depth: int = 0) -> None:
        """Add the entry `leaf` of the directory `parent_fd` under `name`, with all below it.

        What goes away meanwhile is left out. Raises InvalidRequestError for a tree too deep.
        """
        if depth > _DEEPEST:
            raise InvalidRequestError(f"{name[:80]}...: deeper than {_DEEPEST} directories")
        try:
            there = os.stat(leaf, dir_fd=parent_fd, follow_symlinks=False)
            if not stat.S_ISDIR(there.st_mode):
                self.add_entry(parent_fd, leaf, name, there)
                return
            fd = os.open(leaf, _OPEN | os.O_DIRECTORY, dir_fd=parent_fd)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if name:
                self.add_entry(parent_fd, leaf, name, there)
            prefix = f"{name.rstrip('/')}/" if name else ""
            for child in sorted(os.listdir(fd)):  # noqa: PTH208 - pathlib knows no descriptors
                self.add(fd, child, prefix + child, depth + 1)
        finally:
            os.close(fd)

    def add_entry(self, parent_fd: int, leaf: str, name: str, there: os.stat_result) -> None:
        """Add one entry without what is below it; a socket is left out."""
        if stat.S_ISSOCK(there.st_mode):
            return
        member = self._member(parent_fd, leaf, name, there)
        if member.type in (tarfile.REGTYPE, tarfile.DIRTYPE):
            with contextlib.closing(_File(parent_fd, leaf)) as file:
                self._read_xattrs(file.fd, member)
                if member.isdir():
                    self._tar.addfile(member)
                else:
                    self._tar.addfile(member, _Padded(file.fd, member.size))
            return
        self._tar.addfile(member)

    def add_marker(self, name: str) -> None:
        """Add an empty file of root's, such as the whiteouts of a layer."""
        member = tarfile.TarInfo(name)
        member.mode = 0
        self._tar.addfile(member)

    def _member(
        self, parent_fd: int, leaf: str, name: str, there: os.stat_result
    ) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.mode = stat.S_IMODE(there.st_mode)
        member.uid, member.gid = self._inside(there.st_uid), self._inside(there.st_gid)
        seconds, rest = divmod(there.st_mtime_ns, 1_000_000_000)
        member.mtime = seconds
        if rest:  # a float has no room for all nine digits
            member.pax_headers = {"mtime": f"{seconds}.{rest:09d}"}
        if stat.S_ISDIR(there.st_mode):
            member.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(there.st_mode):
            member.type = tarfile.SYMTYPE
            member.linkname = os.readlink(leaf, dir_fd=parent_fd)
        elif stat.S_ISFIFO(there.st_mode):
            member.type = tarfile.FIFOTYPE
        elif stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode):
            member.type = tarfile.CHRTYPE if stat.S_ISCHR(there.st_mode) else tarfile.BLKTYPE
            member.devmajor, member.devminor = os.major(there.st_rdev), os.minor(there.st_rdev)
        elif (first := self._links.get((there.st_dev, there.st_ino))) is not None:
            member.type = tarfile.LNKTYPE
            member.linkname = first
        else:
            member.size = there.st_size
            if there.st_nlink > 1:
                self._links[there.st_dev, there.st_ino] = name
        return member

    def _inside(self, number: int) -> int:
        return inside(number, self._base) if self._base else number

    def _read_xattrs(self, fd: int, member: tarfile.TarInfo) -> None:
        """Keep the file's capability and its user's attributes, in the form of star's headers."""
        try:
            names = os.listxattr(fd)
        except OSError as exc:
            if exc.errno == errno.EOPNOTSUPP:
                return
            raise
        kept = {}
        for name in names:
            if name == _CAPABILITY or name.startswith("user."):
                try:
                    value = os.getxattr(fd, name)
                except OSError:  # taken away meanwhile, or not readable through this namespace
                    continue
                if name == _CAPABILITY:
                    value = capability_inside(value)
                kept[_XATTR_PREFIX + name] = value.decode("utf-8", "surrogateescape")
        member.pax_headers = {**member.pax_headers, **kept}

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()


class _File:
    """An open file or directory."""

    def __init__(self, parent_fd: int, leaf: str) -> None:
        self.fd = os.open(leaf, _OPEN, dir_fd=parent_fd)

    def close(self) -> None:
        os.close(self.fd)


class _Padded:
    """A file's first `size` bytes: what it lacks since it was measured is zeros, so that the tar stays whole."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._left = size

    def read(self, most: int = _BLOCK, /) -> bytes:
        wanted = min(most, self._left)
        data = os.read(self._fd, wanted) if wanted else b""
        while len(data) < wanted:
            more = os.read(self._fd, wanted - len(data))
            data += more or bytes(wanted - len(data))
        self._left -= wanted
        return data
