"""System calls that Python does not offer. Numbers are x86-64's and arm64's common ones (>= 424)."""

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from labfleet_chassis.namespace_holder import held_namespaces

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442

AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_MOUNT_ATTR_IDMAP = 0x00100000

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_NS_GET_USERNS = 0xB701
"""ioctl_ns(2)."""

_FS_GET_FLAGS = 0x80086601
_FS_SET_FLAGS = 0x40086602
_FS_TOP_DIRECTORY = 0x00020000
"""ioctl_iflags(2); `chattr +T`."""

MNT_DETACH = 2
MS_PRIVATE = 1 << 18
MS_SAFE = 2 | 4 | 8
"""No set-ids, no devices, no programs."""
MS_BIND = 4096
MS_REC = 16384

CLONE_FS = 0x00000200
CLONE_NEWUSER = 0x10000000


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def flush_file_system(path: Path) -> None:
    """Put all of the file system that holds the directory `path` on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _checked(_libc.syncfs(descriptor), f"flush {path}")
    finally:
        os.close(descriptor)


def spread_directories(path: Path) -> None:
    """Let the file system keep the directories below `path` apart, each with its own files.

    ext4 would put them into one group of blocks, where each new file steps over all that were deleted
    within some minutes: a tenth of a start after a class has ended. Others have no such flag.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = bytearray(8)
        fcntl.ioctl(descriptor, _FS_GET_FLAGS, flags)
        wanted = int.from_bytes(flags, "little") | _FS_TOP_DIRECTORY
        fcntl.ioctl(descriptor, _FS_SET_FLAGS, wanted.to_bytes(8, "little"))
    except OSError as exc:
        if exc.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM):
            raise
    finally:
        os.close(descriptor)


def open_in_root(
    root_fd: int, path: str, flags: int, mode: int = 0, *, resolve: int = RESOLVE_IN_ROOT
) -> int:
    """Open `path` as if `root_fd` were `/`: symbolic links cannot lead out (openat2).

    Raises OSError.
    """
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    return _checked(
        _libc.syscall(_SYS_OPENAT2, root_fd, os.fsencode(path), how, len(how)), f"open {path}"
    )


@contextlib.contextmanager
def path_beneath(base: Path, path: str) -> Iterator[Path]:
    """A way to a file or directory below `base` that nobody can bend meanwhile.

    Raises OSError; EXDEV is for a link that leads out.
    """
    base_fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = open_in_root(base_fd, path, os.O_PATH, resolve=RESOLVE_BENEATH)
    finally:
        os.close(base_fd)
    try:
        yield Path(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def idmapped_clone(source: Path, userns_fd: int) -> int:
    """Return a detached mount of `source` with ids shifted by the user namespace. Raises OSError."""
    tree = clone_mount(source)
    try:
        attributes = struct.pack("QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, userns_fd)
        _checked(
            _libc.syscall(
                _SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes)
            ),
            f"idmap mount {source}",
        )
    except OSError:
        os.close(tree)
        raise
    return tree


def clone_mount(source: Path) -> int:
    """Return a detached copy of the mount at `source`. Raises OSError."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    return _checked(
        _libc.syscall(_SYS_OPEN_TREE, AT_FDCWD, os.fsencode(source), flags), f"clone mount {source}"
    )


def attach_mount(tree_fd: int, target: Path) -> None:
    """Attach a detached mount. Raises OSError."""
    _checked(
        _libc.syscall(
            _SYS_MOVE_MOUNT,
            tree_fd,
            b"",
            AT_FDCWD,
            os.fsencode(target),
            _MOVE_MOUNT_F_EMPTY_PATH,
        ),
        f"attach mount at {target}",
    )


def attach_mount_at(tree_fd: int, target_fd: int) -> None:
    """Attach a detached mount at an open directory. Raises OSError."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _checked(_libc.syscall(_SYS_MOVE_MOUNT, tree_fd, b"", target_fd, b"", flags), "attach a mount")


def mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    """Mount a file system (mount(2)). Raises OSError."""
    _checked(
        _libc.mount(
            source.encode(),
            os.fsencode(target),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        f"mount {kind or 'flags'} at {target}",
    )


def unmount(target: Path) -> None:
    """Detach a mount lazily; not mounted is success. Raises OSError."""
    try:
        _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno != 22:  # EINVAL: not a mount point
            raise


def unshare(flags: int) -> None:
    """Leave shared namespaces, for the calling thread only. Raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def enter_namespace(fd: int, kind: int) -> None:
    """Enter a namespace. Raises OSError."""
    _checked(_libc.setns(fd, kind), "setns")


def make_user_namespace(base: int, count: int) -> int:
    """Return a descriptor of a new user namespace that maps 0.. to `base`... Raises OSError."""
    with held_namespaces(base, count) as there:
        return os.open(there / "user", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def owner_of(namespace: str) -> Iterator[int]:
    """A descriptor of the user namespace that a namespace belongs to, good within the block.

    Raises OSError; PermissionError for this process's own: nothing of a container's is made in that.
    """
    held = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = fcntl.ioctl(held, _NS_GET_USERNS)
    finally:
        os.close(held)
    try:
        if os.path.samestat(os.fstat(owner), os.stat("/proc/self/ns/user")):  # noqa: PTH116
            raise PermissionError(f"{namespace} belongs to the host")
        yield owner
    finally:
        os.close(owner)


def mount_of(path: Path) -> tuple[str, bool, bool]:
    """Mount point that a path is on, and whether it is shared and whether it is a slave."""
    best = ("/", False, False)
    real = f"{path.resolve()}/"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        target, tags = words[4].replace("\\040", " "), words[6 : words.index("-")]
        if real.startswith(f"{target.rstrip('/')}/") and len(target) >= len(best[0]):
            is_shared, is_slave = (
                any(tag.startswith(name) for tag in tags) for name in ("shared:", "master:")
            )
            best = (target, is_shared, is_slave)
    return best


def mounted_below(directory: Path) -> list[Path]:
    """Mount points at or below `directory`, deepest last."""
    prefix = f"{directory}/"
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split()[4].replace("\\040", " ")
        if target == str(directory) or target.startswith(prefix):
            found.append(Path(target))
    return found


def mounted_children(directory: Path) -> set[str]:
    """Names of what lies in `directory` and is mounted somewhere, as layers are below containers.

    The kernel tells a mount's root within its own file system only, so the last names decide.
    """
    tail = f"/{directory.parent.name}/{directory.name}/"
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        _, is_there, name = line.split()[3].rpartition(tail)
        if is_there and "/" not in name:
            found.add(name)
    return found
