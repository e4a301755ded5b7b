"""Looking a `--user` up in the image's own /etc/passwd and /etc/group, which are hostile input."""

import contextlib
import os
import stat
from pathlib import Path

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.adapters.kernel import open_in_root
from labfleet_runtime_agent.core import users
from labfleet_runtime_agent.core.spec import Identity

_MOST_BYTES = 1 << 20


def look_up(root: Path, user: str, group_add: tuple[str, ...]) -> Identity:
    """Return who `user` is in the image. Raises InvalidRequestError with docker's words."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return look_up_at(fd, user, group_add)
    finally:
        os.close(fd)


def look_up_at(root_fd: int, user: str, group_add: tuple[str, ...]) -> Identity:
    """As `look_up`, from a descriptor of the root."""
    passwd = _read(root_fd, "etc/passwd")
    group = _read(root_fd, "etc/group")
    return users.resolve(user, passwd, group, group_add)


def _read(root_fd: int, path: str) -> str:
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        there = os.fstat(fd)
        if not stat.S_ISREG(there.st_mode):
            raise InvalidRequestError(f"/{path} of the image is not a regular file")
        if there.st_size > _MOST_BYTES:
            raise InvalidRequestError(f"/{path} of the image is larger than {_MOST_BYTES} bytes")
        return os.read(fd, _MOST_BYTES).decode(errors="replace")
