"""Unpacking of one layer in a child of its own, which a bomb may end."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from labfleet_proto.errors import Problem
from labfleet_proto.images import LayerRef

Unpack = Callable[[AsyncIterator[bytes], LayerRef, Path], Awaitable[dict[str, str]]]


async def unpack(pieces: AsyncIterator[bytes], layer: LayerRef, aside: Path) -> dict[str, str]:
    """Unpack a blob into an empty directory; return its `digest` and `diff_id`.

    Raises what the child says of it.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "labfleet_runtime_agent.adapters.unpack_layer",
        str(aside),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await _feed(child, pieces)
        if child.stdin is not None:
            child.stdin.close()
        out, _ = await child.communicate()
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


async def _feed(child: asyncio.subprocess.Process, pieces: AsyncIterator[bytes]) -> None:
    try:
        async for data in pieces:
            if child.stdin is None or child.stdin.is_closing():
                return
            child.stdin.write(data)
            await child.stdin.drain()
    except (BrokenPipeError, ConnectionResetError, RuntimeError):
        return  # the child has ended and said why; uvloop raises RuntimeError for a closed pipe
