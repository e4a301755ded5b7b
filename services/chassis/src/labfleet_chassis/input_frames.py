"""A client's input on its way to a host, in frames: so that its end and the client's end differ.

Each frame is a length, big-endian 32 bits, and as many bytes; one without bytes ends the input. TCP's own
half-close would look the same as a client that is gone, until the next write to it fails. Output is raw.
"""

import struct

from labfleet_chassis.data_port import ByteStream

_HEAD = struct.Struct(">I")
_LONGEST = 1 << 20
_READ = 1 << 18


class InputWriter:
    """The api's side: what a stream's splice needs of a host."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def read(self, most: int = _READ) -> bytes:
        """Return output, none at its end. Raises ConnectionError."""
        return await self._stream.read(most)

    async def write(self, data: bytes) -> None:
        """Send input and wait while the host is slow. Raises ConnectionError."""
        for start in range(0, len(data), _LONGEST):
            part = data[start : start + _LONGEST]
            await self._stream.write(_HEAD.pack(len(part)) + part)

    def write_eof(self) -> None:
        """End the input; the output goes on."""
        if not self._stream.writer.is_closing():
            self._stream.writer.write(_HEAD.pack(0))


class InputReader:
    """The host's side."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._left = 0

    async def read(self) -> bytes:
        """Return input, none at its end. Raises ConnectionError when the client is gone."""
        if self._left == 0:
            (self._left,) = _HEAD.unpack(await self._stream.read_exactly(_HEAD.size))
        if self._left > _LONGEST:
            raise ConnectionResetError(f"a frame of {self._left} bytes")
        if self._left == 0:
            return b""
        data = await self._stream.read(min(self._left, _READ))
        if not data:
            raise ConnectionResetError("the client is gone")
        self._left -= len(data)
        return data

    async def gone(self) -> None:
        """After the input's end, wait until the client is gone."""
        try:
            while await self._stream.read(_READ):
                pass
        except ConnectionError:
            return
