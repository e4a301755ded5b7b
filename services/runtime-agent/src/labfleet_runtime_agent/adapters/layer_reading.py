"""A writable layer read beside the agent: its changes, its tar, its size."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from labfleet_proto.errors import InternalError
from labfleet_runtime_agent.adapters import children
from labfleet_runtime_agent.adapters.writable_layer import WritableLayer

_CHUNK = 1 << 18
_SIZE_LIMIT_S = 60.0

Write = Callable[[bytes], Awaitable[None]]


async def write_changes(layer: WritableLayer, write: Write) -> None:
    """Write docker's JSON list of what changed. Raises InvalidRequestError, InternalError."""
    await _copy(layer, "changes", write)


async def write_tar(layer: WritableLayer, write: Write) -> None:
    """Write the changes as an uncompressed layer. Raises InvalidRequestError, InternalError."""
    await _copy(layer, "tar", write)


async def sizes(layer: WritableLayer) -> list[int]:
    """Bytes of the writable layer, then of each of its image's layers. Raises InternalError, TimeoutError."""
    said = bytearray()

    async def keep(data: bytes) -> None:
        said.extend(data)

    async with asyncio.timeout(_SIZE_LIMIT_S):
        await _copy(layer, "sizes", keep)
    return [int(each) for each in json.loads(said)]


async def _copy(layer: WritableLayer, op: str, write: Write) -> None:
    order = {
        "op": op,
        "upper": str(layer.upper),
        "layers": [str(path) for path in layer.layers],
        "base": layer.base,
    }
    async with children.child("layer_child", [json.dumps(order)]) as child:
        if child.stdout is None:
            raise InternalError("child without standard output")
        while data := await child.stdout.read(_CHUNK):
            await write(data)
        await children.verdict(child)
