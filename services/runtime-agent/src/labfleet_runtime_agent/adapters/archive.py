"""`docker cp`: streams between the data port and the confined child."""

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.root_fd)
        os.close(self.userns_fd)


def _child(
    view: RootView, request: dict[str, Any]
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    fds = (view.root_fd, view.userns_fd)
    argv = [*map(str, fds), json.dumps(request | {"container": view.container})]
    return children.child("archive_child", argv, fds)


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


async def write(
    view: RootView, path: str, read_more: Read, *, keep_owner: bool, refuse_type_change: bool
) -> None:
    """Unpack a tar into an existing directory.

    Raises NotFoundError (no such directory), InvalidRequestError (a bad archive), DiskFullError.
    """
    request = {
        "op": "write",
        "path": path,
        "keep_owner": keep_owner,
        "refuse_type_change": refuse_type_change,
    }
    async with _child(view, request) as child:
        if child.stdin is None:
            raise InternalError("archive child without standard input")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while data := await read_more():
                child.stdin.write(data)
                await child.stdin.drain()
            child.stdin.close()
        await children.verdict(child)
