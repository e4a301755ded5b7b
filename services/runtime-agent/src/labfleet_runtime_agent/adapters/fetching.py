"""A build's context from elsewhere: fetched by children in the build's own room, as nobody."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from labfleet_proto.errors import InternalError, InvalidRequestError, NotFoundError
from labfleet_runtime_agent.adapters import buildah, fetch_child, git_child
from labfleet_runtime_agent.adapters.buildah import Registry, Room
from labfleet_runtime_agent.core.remotes import GitRemote

_CHUNK = 1 << 18
_NOT_FOUND = 404


def _script(module: str, *words: str) -> str:
    """The words that run a program of this room where its file cannot be read."""
    python = str(Path(sys.executable).resolve())
    return buildah.words(python, "-I", "-c", Path(module).read_text(), *words)


@contextlib.asynccontextmanager
async def _child(
    room: Room, registry: Registry, script: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await buildah.start(room, script, registry, runtime="", with_login=False)
    try:
        yield child
    finally:
        await end(child)


async def end(child: asyncio.subprocess.Process) -> None:
    """Kill a child that still runs."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def body(room: Room, registry: Registry, url: str) -> AsyncIterator[bytes]:
    """What is at a URL. Raises NotFoundError, InvalidRequestError with docker's words."""
    async with _child(room, registry, _script(fetch_child.__file__, url)) as child:
        if child.stdout is None:
            raise InternalError("fetching child without standard output")
        while data := await child.stdout.read(_CHUNK):
            yield data
        await _verdict(child, f"error downloading remote context {url}: ")


async def repository(room: Room, registry: Registry, remote: GitRemote) -> Path:
    """Fetch a repository; return where its folder is. Raises InvalidRequestError."""
    script = _script(git_child.__file__, remote.url, remote.reference, str(room.fetched))
    async with _child(room, registry, script) as child:
        await _verdict(child, "unable to prepare context: ")
    found = os.path.realpath(room.fetched / remote.folder.strip("/"))
    if not (found == str(room.fetched) or found.startswith(f"{room.fetched}/")):
        raise InvalidRequestError(
            f"error setting git checkout root: {remote.folder}: leads outside"
        )
    if not Path(found).is_dir():
        raise InvalidRequestError(
            f"error setting git checkout root: {remote.folder}: not a directory"
        )
    return Path(found)


async def _verdict(child: asyncio.subprocess.Process, what: str) -> None:
    if child.stderr is None:
        raise InternalError("fetching child without standard error")
    said = (await child.stderr.read()).decode(errors="replace").strip()
    await child.wait()
    try:
        answer = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError) as exc:
        raise InternalError(f"fetching child failed: {said[-500:]}") from exc
    if "error" in answer:
        kind = NotFoundError if answer.get("status") == _NOT_FOUND else InvalidRequestError
        raise kind(f"{what}{answer['error']}")
