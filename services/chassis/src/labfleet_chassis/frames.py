"""Frames in one direction of a byte stream: a stream that is cut is never taken for one that ended.

Wire form: four bytes of length (big endian) and so many bytes; length 0 ends it, and then a second
frame says how: empty for good, or a `Problem`.
"""

import asyncio
import contextlib
import struct

from labfleet_chassis.data_port import ByteStream
from labfleet_proto.errors import LabfleetError, UnavailableError
from labfleet_proto.problem import Problem

_HEAD = struct.Struct("!I")
_MOST = 4 << 20
_CUT = 256 << 10
_REFUSAL_LIMIT_S = 10.0


async def send(stream: ByteStream, data: bytes) -> None:
    """Send bytes; none is nothing. Raises ConnectionError."""
    for start in range(0, len(data), _CUT):
        part = data[start : start + _CUT]
        await stream.write(_HEAD.pack(len(part)) + part)


async def end(stream: ByteStream, error: LabfleetError | None = None) -> None:
    """End this direction, well or with an error. Raises ConnectionError."""
    word = error.to_problem().model_dump_json().encode() if error is not None else b""
    await stream.write(_HEAD.pack(0) + _HEAD.pack(len(word)) + word)


async def refuse(
    stream: ByteStream, error: LabfleetError, limit_s: float = _REFUSAL_LIMIT_S
) -> None:
    """End both directions while the other side may still be sending, once it has ended its own.

    A connection that is closed with bytes unread is reset, and then the other side never hears why.
    It has `limit_s` for that. Raises ConnectionError.
    """
    await end(stream, error)
    stream.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while await stream.read():
                pass


async def receive(stream: ByteStream) -> bytes:
    """Return the next bytes; none at the good end.

    Raises the LabfleetError that the sender ended with, UnavailableError when the stream was cut.
    """
    data = await _frame(stream)
    if data:
        return data
    word = await _frame(stream)
    if word:
        raise Problem.model_validate_json(word).to_error()
    return b""


async def _frame(stream: ByteStream) -> bytes:
    try:
        (size,) = _HEAD.unpack(await stream.read_exactly(_HEAD.size))
        if size > _MOST:
            raise UnavailableError(f"a frame of {size} bytes is no frame")
        return await stream.read_exactly(size) if size else b""
    except ConnectionError as exc:
        raise UnavailableError("the other side went away before the end") from exc
