"""A framed stream as a blocking file, for the thread that works through a tar."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import TypeVar

from labfleet_chassis import frames
from labfleet_chassis.data_port import ByteStream

T = TypeVar("T")

_LIMIT_S = 600.0
"""A client that says or takes nothing for so long is gone."""


class Loop:
    """Runs coroutines of the event loop from a thread."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()

    def _wait(self, work: Callable[[], Awaitable[T]]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(_LIMIT_S):
                return await work()

        return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()

    def receive(self) -> bytes:
        """Return the next bytes; none at the end. Raises LabfleetError."""
        return self._wait(lambda: frames.receive(self._stream))

    def send(self, data: bytes) -> None:
        """Send bytes. Raises ConnectionError."""
        self._wait(lambda: frames.send(self._stream, data))


class Incoming(io.RawIOBase):
    """What a client sends, as a file to read."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop
        self._rest = b""
        self._is_over = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with what there is. Raises LabfleetError."""
        if not self._rest and not self._is_over:
            self._rest = self._loop.receive()
            self._is_over = not self._rest
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class Outgoing(io.RawIOBase):
    """What a client gets, as a file to write."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """Send and wait while the client is slow. Raises ConnectionError."""
        self._loop.send(bytes(data))
        return len(data)
