"""`docker cp`: streams between the data port and the confined child."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from labfleet_proto.errors import InternalError, Problem
from labfleet_proto.ids import ContainerId
from labfleet_proto.runtime import PathStat

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


@contextlib.asynccontextmanager
async def _child(
    view: RootView, request: dict[str, Any]
) -> AsyncIterator[asyncio.subprocess.Process]:
    argv = [
        str(view.root_fd),
        str(view.userns_fd),
        json.dumps(request | {"container": view.container}),
    ]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "labfleet_runtime_agent.adapters.archive_child",
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(view.root_fd, view.userns_fd),
        limit=1 << 20,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _verdict(child: asyncio.subprocess.Process) -> dict[str, Any]:
    """Wait for the child's last word. Raises the LabfleetError that it names."""
    if child.stderr is None:
        raise InternalError("archive child without standard error")
    said = (await child.stderr.read()).decode(errors="replace").strip()
    await child.wait()
    try:
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError) as exc:
        raise InternalError(f"archive child failed: {said[-500:]}") from exc
    if "error" in answer:
        raise Problem(code=answer["code"], message=answer["error"]).to_error()
    return answer


async def stat_path(view: RootView, path: str) -> PathStat:
    """Describe a path. Raises NotFoundError with docker's words."""
    async with asyncio.timeout(_STAT_LIMIT_S), _child(view, {"op": "stat", "path": path}) as child:
        return PathStat.model_validate(await _verdict(child))


async def read(view: RootView, path: str, write: Write) -> None:
    """Write the tar of a path. Raises NotFoundError, InvalidRequestError."""
    async with _child(view, {"op": "read", "path": path}) as child:
        if child.stdout is None:
            raise InternalError("archive child without standard output")
        while data := await child.stdout.read(_CHUNK):
            await write(data)
        await _verdict(child)


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
        await _verdict(child)
