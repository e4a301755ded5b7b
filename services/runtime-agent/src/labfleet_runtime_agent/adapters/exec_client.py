"""The client of an exec: it may detach or go away, the command goes on."""

import asyncio
from collections.abc import AsyncIterator

from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.input_frames import InputReader
from labfleet_proto.runtime import CreateExec
from labfleet_runtime_agent.core.detach_keys import DetachKeys
from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame


class ExecClient:
    """Gives a client the output that it asked for, and its keys to the command."""

    def __init__(self, stream: ByteStream, spec: CreateExec, *, is_framed: bool) -> None:
        self._stream = stream
        self._input = InputReader(stream)
        self._is_framed = is_framed
        # Without frames there is one stream: docker gives standard output alone.
        self._wanted = {
            STDOUT: spec.attach_stdout,
            STDERR: spec.attach_stderr and is_framed,
        }
        self._detach_keys = DetachKeys(bytes.fromhex(spec.detach_keys)) if spec.is_tty else None
        self._sending = asyncio.Lock()
        self.has_detached = False
        self.over = asyncio.Event()
        """Set when nothing more goes to or comes from the client."""

    async def send(self, kind: int, data: bytes) -> None:
        """Send output and wait while the client is slow; without a client it is dropped."""
        if self.over.is_set() or not self._wanted[kind]:
            return
        async with self._sending:
            try:
                await self._stream.write(frame(kind, data) if self._is_framed else data)
            except ConnectionError:
                self.over.set()

    async def keys(self) -> AsyncIterator[bytes]:
        """Yield what the client types, until its end of input or until it is gone."""
        try:
            while data := await self._input.read():
                if self._detach_keys is not None:
                    data, self.has_detached = self._detach_keys.feed(data)
                if data:
                    yield data
                if self.has_detached:
                    self.over.set()
                    return
        except ConnectionError:
            self.over.set()

    async def left(self) -> None:
        """After its end of input, wait until the client is gone."""
        await self._input.gone()
        self.over.set()
