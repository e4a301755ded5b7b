"""A raw connection as a WebSocket: output leaves as binary messages, any message is input."""

import asyncio

from labfleet_api.adapters.hijack import Hijacked
from labfleet_api.core.websocket import FrameReader, Opcode, ProtocolError, packed

_NORMAL = 1000


class WebSocket:
    """What `splice` needs of a client."""

    def __init__(self, connection: Hijacked) -> None:
        self._connection = connection
        self._frames = FrameReader()
        self._is_closing = False

    @property
    def lost(self) -> asyncio.Event:
        """Set when the connection is gone."""
        return self._connection.lost

    async def read(self, most: int = 65_536) -> bytes:
        """Return input; none when the client closes. Pings are answered."""
        while data := await self._connection.read(most):
            got = bytearray()
            try:
                for frame in self._frames.feed(data):
                    if frame.opcode is Opcode.PING:
                        await self._send(Opcode.PONG, frame.payload)
                    elif frame.opcode is Opcode.CLOSE:
                        await self._close(_NORMAL)
                        return bytes(got)
                    elif frame.opcode is not Opcode.PONG:
                        got += frame.payload
            except ProtocolError as exc:
                await self._close(exc.code)
                return b""
            if got:
                return bytes(got)
        self.lost.set()  # a WebSocket has no half-close
        return b""

    async def write(self, data: bytes) -> None:
        """Send output and wait while the client is slow. Raises ConnectionError."""
        await self._send(Opcode.BINARY, data)

    async def _send(self, opcode: Opcode, payload: bytes) -> None:
        if not self._is_closing:
            await self._connection.write(packed(opcode, payload))

    async def _close(self, code: int) -> None:
        await self._send(Opcode.CLOSE, code.to_bytes(2, "big"))
        self._is_closing = True
        self.lost.set()

    async def finish(self) -> None:
        """Say that there is no more output."""
        await self._close(_NORMAL)

    def close(self) -> None:
        """Close both directions; what was written is still sent."""
        self._connection.close()
