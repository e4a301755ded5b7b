"""The confined child behind `docker cp`: `python -m ...archive_child ROOT_FD USERNS_FD JSON`.

It enters the container's user namespace first, so that it sees and makes files with the container's
own ids, has no power over anything else, and idmapped volumes admit it. Nothing of the container is
ever executed. A tar comes on standard input or leaves on standard output; the last line on standard
error is JSON: `{}` or `{"error": ..., "code": ...}`.
"""

import json
import os
import stat
import sys
from typing import IO, Any, cast

from labfleet_chassis.tar_reading import DAMAGE, open_tar
from labfleet_proto.errors import InvalidRequestError, LabfleetError, NotFoundError
from labfleet_runtime_agent.adapters import decompression
from labfleet_runtime_agent.adapters.decompression import Chunks, decoded_by_magic
from labfleet_runtime_agent.adapters.kernel import CLONE_NEWUSER, enter_namespace, open_in_root
from labfleet_runtime_agent.adapters.tree import TreeWriter
from labfleet_runtime_agent.adapters.tree_reader import TreeReader, allow_depth

_GO_DIR = 1 << 31
_GO_SYMLINK = 1 << 27
_GO_DEVICE = 1 << 26
_GO_PIPE = 1 << 25
_GO_SOCKET = 1 << 24
_GO_SETUID = 1 << 23
_GO_SETGID = 1 << 22
_GO_CHAR = 1 << 21
_GO_STICKY = 1 << 20
_BLOCK = 1 << 20
_MOST_STEPS = 4096
"""Names and links on the way along one path, far above the kernel's limit."""


def go_mode(mode: int) -> int:
    """Return Go's os.FileMode of a Unix mode, as docker sends it."""
    bits = mode & 0o777
    kinds = {
        stat.S_IFDIR: _GO_DIR,
        stat.S_IFLNK: _GO_SYMLINK,
        stat.S_IFBLK: _GO_DEVICE,
        stat.S_IFCHR: _GO_DEVICE | _GO_CHAR,
        stat.S_IFIFO: _GO_PIPE,
        stat.S_IFSOCK: _GO_SOCKET,
    }
    bits |= kinds.get(stat.S_IFMT(mode), 0)
    for unix, go in (
        (stat.S_ISUID, _GO_SETUID),
        (stat.S_ISGID, _GO_SETGID),
        (stat.S_ISVTX, _GO_STICKY),
    ):
        if mode & unix:
            bits |= go
    return bits


def _split(path: str) -> tuple[str, str]:
    """Directory and last name of a path inside the container, which is taken from its root.

    A slash or a dot at the end means what a link leads to, as docker has it.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.endswith(("/", "/.")) or parts[-1] == "..":
        return "/".join(parts) or ".", "."
    return "/".join(parts[:-1]) or ".", parts[-1]


def _parent(root: int, path: str, container: str) -> tuple[int, str]:
    directory, leaf = _split(path)
    try:
        return open_in_root(root, directory, os.O_RDONLY | os.O_DIRECTORY), leaf
    except FileNotFoundError as exc:
        raise _missing(path, container) from exc
    except NotADirectoryError as exc:
        if leaf == ".":
            raise InvalidRequestError(f"{path}: not a directory") from exc
        raise _missing(path, container) from exc


def _missing(path: str, container: str) -> NotFoundError:
    return NotFoundError(f"Could not find the file {path} in container {container}")


def _resolved(root: int, path: str) -> str:
    """Where a path leads when every link is followed beneath the root; it may lead to nothing."""
    done: list[str] = []
    pending = [part for part in path.split("/") if part][::-1]
    for _ in range(_MOST_STEPS):
        if not pending:
            break
        part = pending.pop()
        if part == "..":
            del done[-1:]
        elif part != ".":
            target = _link(root, "/".join([*done, part]))
            if target is None:
                done.append(part)
            else:
                done = [] if target.startswith("/") else done
                pending += [each for each in target.split("/") if each][::-1]
    return "/" + "/".join(done)


def _link(root: int, path: str) -> str | None:
    """What a path without links in its directories points to; None if it is no link."""
    try:
        fd = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _stat(root: int, path: str, container: str) -> dict[str, Any]:
    parent, leaf = _parent(root, path, container)
    try:
        there = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError as exc:
        raise _missing(path, container) from exc
    finally:
        os.close(parent)
    return {
        "name": _base(path),
        "size_bytes": there.st_size,
        "mode": go_mode(there.st_mode),
        "mtime_ns": there.st_mtime_ns,
        "link_target": _resolved(root, path) if stat.S_ISLNK(there.st_mode) else "",
    }


def _base(path: str) -> str:
    """The last name of a path as Go's `filepath.Base` has it."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def _read(root: int, path: str, container: str) -> dict[str, Any]:
    about = _stat(root, path, container)
    parent, leaf = _parent(root, path, container)
    reader = TreeReader(sys.stdout.buffer)
    if leaf != ".":
        reader.add(parent, leaf, leaf)
    elif path.endswith("/.") or _base(path) in ("/", ".."):
        reader.add(parent, ".", "./")  # as docker names what is in a directory
    else:
        reader.add(parent, ".", _base(path))
    reader.close()
    sys.stdout.buffer.flush()
    return about


def _export(root: int) -> dict[str, Any]:
    """Write everything, as `docker export` names it: without a leading `./`."""
    reader = TreeReader(sys.stdout.buffer)
    reader.add(root, ".", "")
    reader.close()
    sys.stdout.buffer.flush()
    return {}


def _target(root: int, request: dict[str, Any]) -> dict[str, Any]:
    """Check where an archive is to be unpacked, in docker's order and words."""
    path = request["path"]
    try:
        os.close(open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY))
    except FileNotFoundError as exc:
        raise _missing(path, request["container"]) from exc
    except NotADirectoryError as exc:
        raise InvalidRequestError("extraction point is not a directory") from exc
    except OSError as exc:
        raise InvalidRequestError(f"{path}: {exc.strerror}") from exc
    where = f"{_resolved(root, path).rstrip('/')}/"
    for target, is_read_only in request["mounts"]:
        if where.startswith(f"{target.rstrip('/')}/"):
            if is_read_only:
                raise InvalidRequestError("mounted volume is marked read-only")
            return {}
    if request["is_root_read_only"]:
        raise InvalidRequestError("container rootfs is marked read-only")
    return {}


def _write(root: int, request: dict[str, Any]) -> dict[str, Any]:
    writer = TreeWriter(
        root,
        base=request["path"].strip("/") or ".",
        owner=tuple(request["owner"]) if request["owner"] else None,
        refuse_type_change=bool(request["refuse_type_change"]),
    )
    stream = Chunks(decoded_by_magic(sys.stdin.buffer))
    with open_tar(cast("IO[bytes]", stream), _BLOCK) as archive:
        writer.write_all(archive)
    while stream.read(_BLOCK):
        pass
    return {}


def _perform(request: dict[str, Any], root: int) -> dict[str, Any]:
    path, container = request["path"], request["container"]
    match request["op"]:
        case "stat":
            return _stat(root, path, container)
        case "read":
            return _read(root, path, container)
        case "export":
            return _export(root)
        case "target":
            return _target(root, request)
        case _:
            return _write(root, request)


def main() -> None:
    """Run as the child."""
    root, namespace = int(sys.argv[1]), int(sys.argv[2])
    os.umask(0)
    allow_depth()
    enter_namespace(namespace, CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    try:
        answer = _perform(json.loads(sys.argv[3]), root)
    except LabfleetError as exc:
        answer = {"error": exc.message, "code": exc.code}
    except (*DAMAGE, *decompression.DAMAGE[:-1]) as exc:
        answer = {"error": f"archive: damaged: {exc}", "code": "invalid"}
    except BrokenPipeError:
        os._exit(0)
    except OSError as exc:
        answer = {"error": f"{request_path()}: {exc.strerror or exc}", "code": "invalid"}
    sys.stderr.write(json.dumps(answer) + "\n")


def request_path() -> str:
    """Path that was asked for, for messages."""
    return str(json.loads(sys.argv[3])["path"])


if __name__ == "__main__":
    main()
