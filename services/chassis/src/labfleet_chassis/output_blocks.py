"""A container's output on its way from its host, in blocks: so that who was cut off knows where to go on.

Each block is a byte that says what it is, a length, big-endian 32 bits, and as many bytes.
"""

import struct
from enum import IntEnum

from labfleet_chassis.data_port import ByteStream

_HEAD = struct.Struct(">BI")
_LONGEST = 64 << 20


class Kind(IntEnum):
    """What a block is."""

    STDOUT = 1
    STDERR = 2
    POSITION = 3
    """JSON of a `LogPosition`: all before this block stands before it in the container's log, nothing behind."""
    TYPED = 4
    """So many more bytes of input have reached the container: big-endian 32 bits."""
    PLAIN = 5
    """For the client as it is; it counts as nothing."""
    END = 6
    """Nothing more will come. A stream that ends without it was cut."""


_KINDS = {int(kind): kind for kind in Kind}


def block(kind: Kind, payload: bytes = b"") -> bytes:
    """One block."""
    return _HEAD.pack(kind, len(payload)) + payload


async def read_block(stream: ByteStream) -> tuple[Kind, bytes]:
    """Return the next block. Raises ConnectionError for a stream that was cut."""
    number, size = _HEAD.unpack(await stream.read_exactly(_HEAD.size))
    if number not in _KINDS or size > _LONGEST:
        raise ConnectionResetError(f"a block of kind {number} and {size} bytes")
    return _KINDS[number], await stream.read_exactly(size)
