"""Unpacking of one layer in a child of its own, which a bomb may end."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import InternalError, UnavailableError
from labfleet_proto.images import LayerRef
from labfleet_proto.problem import Problem
from labfleet_runtime_agent.adapters import unpack_layer
from labfleet_runtime_agent.adapters.growing_blob import GrowingBlob

Unpack = Callable[[GrowingBlob, LayerRef, Path], Coroutine[Any, Any, dict[str, str]]]

_IDLE_S = 60.0


async def unpack(blob: GrowingBlob, layer: LayerRef, aside: Path) -> dict[str, str]:
    """Unpack a blob, while it still comes, into an empty directory; return its `digest` and `diff_id`.

    Raises what the child says of it, and UnavailableError when no more of it comes.
    """
    try:
        file = blob.open()
    except FileNotFoundError as exc:
        raise UnavailableError(f"unpack layer {layer.digest}: its blob is gone") from exc
    with file:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "labfleet_runtime_agent.adapters.unpack_layer",
            str(aside),
            str(file.fileno()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(file.fileno(),),
        )
    try:
        out = await _talk(child, blob)
        await child.wait()
    except BaseException:
        if child.returncode is None:
            child.kill()
            await child.wait()
        raise
    answer: dict[str, str] = json.loads(out) if out else {"error": "died", "code": "internal"}
    if "error" in answer:
        message = f"unpack layer {layer.digest}: {answer['error']}"
        raise Problem(code=answer["code"], message=message).to_error()
    return answer


async def _talk(child: asyncio.subprocess.Process, blob: GrowingBlob) -> bytes:
    """Tell the child how much has come until it has ended; return what it said."""
    if child.stdin is None or child.stdout is None:
        raise InternalError("child without standard input and output")
    async with TaskGroup() as tasks:
        telling = tasks.create_task(_tell(child.stdin, blob))
        out = await child.stdout.read()
        telling.cancel()
    return out


async def _tell(child: asyncio.StreamWriter, blob: GrowingBlob) -> None:
    told = -1
    try:
        while told < blob.size:
            if blob.has > told:
                told = blob.has
                child.write(unpack_layer.NEWS.pack(told))
                await child.drain()
            else:
                await blob.wait(told, _IDLE_S)
        child.close()
    except (BrokenPipeError, ConnectionResetError, RuntimeError):
        return  # the child has ended and said why; uvloop raises RuntimeError for a closed pipe
