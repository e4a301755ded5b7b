"""Writing the members of a hostile tar below a directory.

Nothing here uses tarfile's own extraction. Each path is resolved by the kernel beneath the root
(`openat2` with RESOLVE_IN_ROOT), so a symbolic link that leads out ends at the root instead.
"""

import contextlib
import errno
import math
import os
import re
import shutil
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from labfleet_chassis.tar_reading import DAMAGE, TarStream, check_end, data_of, stored_pieces
from labfleet_proto.errors import DiskFullError, InvalidRequestError
from labfleet_runtime_agent.adapters.kernel import open_in_root
from labfleet_runtime_agent.core import tar_paths

_NOBODY = 65_534
_XATTR_PREFIX = "SCHILY.xattr."
_XATTRS_KEPT = ("user.", "security.capability")
_MOST_ID = (1 << 32) - 2
_LOOK_EVERY = 64 << 20


@dataclass(frozen=True)
class Caps:
    """How much one archive may make."""

    members: int = 2_000_000
    total_bytes: int = 64 << 30
    spare_disk_bytes: int = 0
    """What must stay free on the disk."""


@dataclass
class TreeWriter:
    """Writes members below `root_fd`; ids are used as they stand in the archive."""

    root_fd: int
    base: str = ""
    """Directory below the root that member names are relative to."""
    with_whiteouts: bool = False
    owner: tuple[int, int] | None = None
    """Whose everything becomes; None keeps the archive's ids."""
    refuse_type_change: bool = False
    """A directory may not replace a file, nor a file a directory."""
    caps: Caps = field(default_factory=Caps)
    _members: int = 0
    _bytes: int = 0
    _looked: int = 0
    _times: dict[str, int] = field(default_factory=dict)

    def write_all(self, archive: tarfile.TarFile) -> None:
        """Write every member.

        Raises:
            InvalidRequestError: a member breaks a rule, or the archive is damaged.
            DiskFullError: no space left.
        """
        try:
            for member in archive:
                self._count(member)
                self._write(member, archive)
            check_end(archive)
            for path, mtime_ns in reversed(self._times.items()):
                self._set_mtime(path, mtime_ns)
        except EOFError as exc:
            raise InvalidRequestError("archive: ends too early") from exc
        except DAMAGE as exc:
            raise InvalidRequestError(f"archive: damaged: {told(exc)}") from exc
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(f"archive: {exc.strerror}") from exc
            raise InvalidRequestError(f"archive: {told(exc)}") from exc

    def _count(self, member: tarfile.TarInfo) -> None:
        self._members += 1
        if member.size < 0 or not (0 <= member.uid <= _MOST_ID and 0 <= member.gid <= _MOST_ID):
            raise InvalidRequestError(
                f"archive: {member.name[:80]!r} has a size or an owner out of range"
            )
        self._bytes += member.size if member.isreg() else 0
        is_large = (
            max(self._bytes, member.size) > self.caps.total_bytes
        )  # the library steps over data
        if self._members > self.caps.members or is_large:
            raise InvalidRequestError(
                f"archive: more than {self.caps.members} members or {self.caps.total_bytes} bytes"
            )
        if self.caps.spare_disk_bytes and self._bytes - self._looked >= _LOOK_EVERY:
            self._looked = self._bytes
            there = os.fstatvfs(self.root_fd)
            if there.f_bavail * there.f_frsize < self.caps.spare_disk_bytes:
                raise DiskFullError("archive: the disk would be full")

    def _write(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        name = tar_paths.clean(member.name)
        is_device = member.ischr() or member.isblk()
        if not name:
            return
        if self.with_whiteouts and tar_paths.is_passed_over(name, is_device=is_device):
            return
        path = f"{self.base}/{name}" if self.base else name
        directory, _, leaf = path.rpartition("/")
        parent = self._parent(directory)
        try:
            if self.with_whiteouts and leaf.startswith(tar_paths.WHITEOUT):
                self._whiteout(parent, leaf)
                return
            self._make_way(parent, leaf, member)
            self._make(parent, leaf, member, archive)
            self._finish(parent, leaf, member)
        finally:
            os.close(parent)
        if member.isdir():
            self._times[path] = _mtime_ns(member)

    def _parent(self, directory: str) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            return open_in_root(self.root_fd, directory or ".", flags)
        except FileNotFoundError:
            above, _, leaf = directory.rpartition("/")
            parent = self._parent(above)
            try:
                self._check_depth(parent)
                os.mkdir(leaf, 0o755, dir_fd=parent)
            except FileExistsError as exc:
                raise InvalidRequestError(
                    f"archive: {directory[:80]!r} is a link to nothing"
                ) from exc
            finally:
                os.close(parent)
            return open_in_root(self.root_fd, directory, flags)

    def _check_depth(self, parent: int) -> None:
        """A layer's directories are no deeper than names may be, whatever links lead to them."""
        if not self.with_whiteouts:
            return
        top, there = (Path(f"/proc/self/fd/{fd}").readlink() for fd in (self.root_fd, parent))
        if len(there.parts) - len(top.parts) >= tar_paths.DEEPEST:
            raise InvalidRequestError("archive: a directory is too deep")

    def _whiteout(self, parent: int, leaf: str) -> None:
        if leaf == tar_paths.OPAQUE:
            os.setxattr(parent, "trusted.overlay.opaque", b"y")
            return
        hidden = leaf.removeprefix(tar_paths.WHITEOUT)
        if not hidden or hidden.startswith(tar_paths.WHITEOUT) or hidden in (".", ".."):
            return  # AUFS metadata, which no one reads
        self._remove(parent, hidden)
        os.mknod(hidden, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=parent)

    def _make_way(self, parent: int, leaf: str, member: tarfile.TarInfo) -> None:
        try:
            there = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_dir = stat.S_ISDIR(there.st_mode)
        if is_dir and member.isdir():
            return
        if self.refuse_type_change and is_dir != member.isdir():
            kinds = ("directory", "non-directory")
            old, new = kinds if is_dir else kinds[::-1]
            raise InvalidRequestError(f'cannot overwrite {old} "{leaf}" with {new}')
        self._remove(parent, leaf)

    def _remove(self, parent: int, leaf: str) -> None:
        try:
            os.unlink(leaf, dir_fd=parent)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(leaf, dir_fd=parent)

    def _make(
        self, parent: int, leaf: str, member: tarfile.TarInfo, archive: tarfile.TarFile
    ) -> None:
        if member.isdir():
            self._check_depth(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(leaf, 0o700, dir_fd=parent)
        elif member.isreg():
            self._make_file(parent, leaf, member, archive)
        elif member.issym():
            os.symlink(member.linkname, leaf, dir_fd=parent)
        elif member.islnk():
            self._make_link(parent, leaf, member)
        elif member.isfifo():
            os.mkfifo(leaf, 0o600, dir_fd=parent)
        else:
            raise InvalidRequestError(f"archive: {member.name!r} is a device or of an unknown type")

    def _make_file(
        self, parent: int, leaf: str, member: tarfile.TarInfo, archive: tarfile.TarFile
    ) -> None:
        source = data_of(member, archive)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(leaf, flags, 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb", buffering=0) as target:
            if member.issparse():
                for start, length in stored_pieces(member, archive):
                    target.seek(start)
                    _copy(source, target, length)
                target.truncate(member.size)
            else:
                _copy(source, target, member.size)

    def _make_link(self, parent: int, leaf: str, member: tarfile.TarInfo) -> None:
        target = tar_paths.clean(member.linkname)
        path = f"{self.base}/{target}" if self.base else target
        directory, _, name = path.rpartition("/")
        try:
            holder = open_in_root(self.root_fd, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as exc:
            raise _no_target(target) from exc
        try:
            try:
                kind = os.stat(name, dir_fd=holder, follow_symlinks=False).st_mode
            except FileNotFoundError as exc:
                raise _no_target(target) from exc
            if stat.S_ISDIR(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                raise InvalidRequestError(f"archive: link target {target!r} is not a file")
            os.link(name, leaf, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(holder)

    def _finish(self, parent: int, leaf: str, member: tarfile.TarInfo) -> None:
        if member.islnk():
            return
        uid, gid = self.owner or (member.uid, member.gid)
        try:
            os.chown(leaf, uid, gid, dir_fd=parent, follow_symlinks=False)
        except OSError as exc:
            if exc.errno != errno.EINVAL:  # an id that the container does not have
                raise
            os.chown(leaf, _NOBODY, _NOBODY, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            os.chmod(leaf, member.mode & 0o7777, dir_fd=parent)
        attributes = _attributes(member)
        if attributes and (member.isdir() or member.isreg()):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with contextlib.closing(_Fd(os.open(leaf, flags, dir_fd=parent))) as opened:
                _set_attributes(opened.number, member.name, attributes)
        if member.isdir():
            return
        mtime_ns = _mtime_ns(member)
        os.utime(leaf, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _set_mtime(self, path: str, mtime_ns: int) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fd = open_in_root(self.root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)


def _no_target(target: str) -> InvalidRequestError:
    return InvalidRequestError(f"archive: link target {target[:80]!r} does not exist")


def _copy(source: TarStream, target: IO[bytes], length: int) -> None:
    """Copy so many bytes. Raises EOFError when there are fewer."""
    left = length
    while left:
        view = source.piece(left)
        if not view:
            raise EOFError
        left -= len(view)
        while view:
            view = view[target.write(view) or 0 :]


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Its time, with the fraction that a float beside so many seconds has no room for."""
    told = member.pax_headers.get("mtime", "")
    if re.fullmatch(r"\d{1,11}\.\d{1,30}", told):
        seconds, _, fraction = told.partition(".")
        return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    if not math.isfinite(member.mtime):
        raise InvalidRequestError(f"archive: {member.name[:80]!r} has a time without sense")
    return int(member.mtime // 1) * 1_000_000_000 + int(member.mtime % 1 * 1e9)


def _attributes(member: tarfile.TarInfo) -> dict[str, bytes]:
    """Its extended attributes, without those that would have power over the host."""
    return {
        name: value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if (name := key.removeprefix(_XATTR_PREFIX)) != key and name.startswith(_XATTRS_KEPT)
    }


def _set_attributes(fd: int, path: str, attributes: dict[str, bytes]) -> None:
    """Set them, after the owner, whose change would take them away. Raises InvalidRequestError."""
    for name, value in attributes.items():
        try:
            os.setxattr(fd, name, value)
        except PermissionError:
            continue  # inside a user namespace
        except OSError as exc:
            if exc.errno == errno.ENOTSUP:
                continue  # as docker: the file system has none
            # ENOSPC, too: it says that one file's attributes do not fit, not that the disk is full
            raise InvalidRequestError(
                f"archive: attribute {name!r} of {path[:80]!r}: {exc.strerror}"
            ) from exc


def told(error: BaseException) -> str:
    """An error's text, in short; names in it that are no UTF-8 could not be sent."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {str(error.filename)[:80]!r}" if error.filename else "")
    return text[:400].encode("utf-8", "backslashreplace").decode()


class _Fd:
    """A descriptor for `contextlib.closing`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        os.close(self.number)
