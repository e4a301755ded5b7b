"""A blob on its way from a host to another or to the image store; the host may itself still be fetching it.

Wire form: four bytes of length (big endian) and so many bytes, again and again, until the blob's end. Length
0 means "I am alive and wait for more myself": silence is a peer that stalls, and is left at once.
"""

import asyncio
import struct
from collections.abc import AsyncIterator

from labfleet_chassis.data_port import ByteStream
from labfleet_proto.errors import UnavailableError

_HEAD = struct.Struct("!I")
_MOST = 1 << 20
_PATIENCE = 10
"""So many times the limit of silence a peer may have nothing new and yet be alive."""


async def send(stream: ByteStream, data: bytes) -> None:
    """Send the next bytes, at most 1 MiB; none says that more is awaited. Raises ConnectionError."""
    await stream.write(_HEAD.pack(len(data)) + data)


async def receive(stream: ByteStream, left: int, silence_s: float) -> AsyncIterator[bytes]:
    """Yield `left` bytes as they come.

    Raises UnavailableError when the peer ends too early, sends too much, or stalls.
    """
    loop = asyncio.get_running_loop()
    moved_s = loop.time()
    while left:
        try:
            async with asyncio.timeout(silence_s):
                (size,) = _HEAD.unpack(await stream.reader.readexactly(_HEAD.size))
                if size > min(left, _MOST):
                    raise UnavailableError(f"it sends {size} bytes where {left} are left")
                data = await stream.reader.readexactly(size) if size else b""
        except TimeoutError as exc:
            raise UnavailableError(f"it stalls: nothing came in {silence_s:g} s") from exc
        except (EOFError, OSError) as exc:  # IncompleteReadError is an EOFError
            raise UnavailableError(f"it went away with {left} bytes left") from exc
        if data:
            moved_s = loop.time()
            left -= size
            yield data
        elif loop.time() - moved_s > silence_s * _PATIENCE:
            raise UnavailableError("it has waited too long itself")
