"""`docker cp`: streams between the data port and the confined child."""

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from labfleet_proto.errors import InternalError
from labfleet_proto.ids import ContainerId
from labfleet_proto.runtime import PathStat
from labfleet_runtime_agent.adapters import children

_STAT_LIMIT_S = 20.0
_CHUNK = 1 << 18

Read = Callable[[], Awaitable[bytes]]
Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class RootView:
    """A container's files: a descriptor of its root, and of its user namespace. Both are owned."""

    container: ContainerId
    root_fd: int
    userns_fd: int
    shown_as: str = ""
    """How messages name the container."""

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.root_fd)
        os.close(self.userns_fd)


@dataclass(frozen=True)
class Target:
    """Where an archive is unpacked, and how."""

    path: str
    owner: tuple[int, int] | None = None
    """Whose everything becomes; None keeps the archive's ids."""
    refuse_type_change: bool = False
    is_root_read_only: bool = False
    mounts: tuple[tuple[str, bool], ...] = ()
    """What is mounted where, and whether only to be read."""

    def order(self, op: str) -> dict[str, Any]:
        """The request to the child."""
        return {"op": op, **asdict(self)}


def _child(
    view: RootView, request: dict[str, Any]
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    fds = (view.root_fd, view.userns_fd)
    name = view.shown_as or view.container
    argv = [*map(str, fds), json.dumps(request | {"container": name})]
    return children.child("archive_child", argv, fds)


async def check_target(view: RootView, target: Target) -> None:
    """Raise NotFoundError or InvalidRequestError, with docker's words, if nothing can be unpacked there."""
    async with asyncio.timeout(_STAT_LIMIT_S), _child(view, target.order("target")) as child:
        await children.verdict(child)


async def stat_path(view: RootView, path: str) -> PathStat:
    """Describe a path. Raises NotFoundError with docker's words."""
    async with asyncio.timeout(_STAT_LIMIT_S), _child(view, {"op": "stat", "path": path}) as child:
        return PathStat.model_validate(await children.verdict(child))


async def read(view: RootView, path: str, write: Write) -> None:
    """Write the tar of a path. Raises NotFoundError, InvalidRequestError."""
    await _copy_out(view, {"op": "read", "path": path}, write)


async def export(view: RootView, write: Write) -> None:
    """Write the tar of all files. Raises InvalidRequestError."""
    await _copy_out(view, {"op": "export", "path": "/"}, write)


async def _copy_out(view: RootView, request: dict[str, Any], write: Write) -> None:
    async with _child(view, request) as child:
        if child.stdout is None:
            raise InternalError("archive child without standard output")
        while data := await child.stdout.read(_CHUNK):
            await write(data)
        await children.verdict(child)


async def write(view: RootView, target: Target, read_more: Read) -> None:
    """Unpack a tar into an existing directory, also a compressed one.

    Raises InvalidRequestError (a bad archive), DiskFullError.
    """
    async with _child(view, target.order("write")) as child:
        if child.stdin is None:
            raise InternalError("archive child without standard input")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while data := await read_more():
                child.stdin.write(data)
                await child.stdin.drain()
            child.stdin.close()
        await children.verdict(child)
