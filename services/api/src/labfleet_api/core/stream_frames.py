"""Docker's framing of two output streams on one connection.

Each frame: one byte stream (1 stdout, 2 stderr), three zero bytes, length as big-endian 32 bits, payload
(moby, pkg/stdcopy).
"""

import struct

_HEADER = struct.Struct(">BxxxI")


def frame(stream: int, payload: bytes) -> bytes:
    """Return `payload` as one frame."""
    return _HEADER.pack(stream, len(payload)) + payload
