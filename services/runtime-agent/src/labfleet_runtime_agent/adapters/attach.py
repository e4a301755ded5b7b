"""Attaching to a container's streams through its monitor's socket."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.input_frames import InputReader
from labfleet_chassis.output_blocks import Kind, block
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import UnavailableError
from labfleet_proto.streams import AttachContainer, LogPosition
from labfleet_runtime_agent.adapters import log_files
from labfleet_runtime_agent.core.detach_keys import DetachKeys
from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame

_PACKET = 32 << 10
_INPUT_PACKET = 8192
_SILENCE_S = 0.2
_FROM_CONMON = {2: STDOUT, 3: STDERR}


def connect(bundle: Path) -> socket.socket:
    """Connect to the monitor's attach socket.

    The path goes through a descriptor of the bundle, as a socket's address holds 107 bytes only.
    Raises UnavailableError.
    """
    directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        link.connect(f"/proc/self/fd/{directory}/attach")
    except OSError as exc:
        link.close()
        raise UnavailableError(f"attach to {bundle.name[:12]}: {exc.strerror}") from exc
    finally:
        os.close(directory)
    link.setblocking(False)
    return link


async def _is_readable(link: socket.socket, limit_s: float | None) -> bool:
    """Wait until there is something to read; False after the limit. Nothing is read."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(link, ready.set)
    try:
        async with asyncio.timeout(limit_s):
            await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(link)
    return True


class Attachment:
    """One client attached to one container, maybe before the container runs."""

    def __init__(
        self,
        request: AttachContainer,
        stream: ByteStream,
        log: Path | None,
        *,
        is_tty: bool,
        last_run: int = 0,
    ) -> None:
        self._stream = stream
        self._input = InputReader(stream)
        self._is_framed = request.is_framed and not is_tty
        self._wanted = {STDOUT: request.with_stdout, STDERR: request.with_stderr}
        self._with_stdin = request.with_stdin
        self._is_in_blocks = request.is_in_blocks
        self._is_resumed = request.resume is not None
        self._log = log if request.is_in_blocks else None
        """Where the output stands, too; None: nowhere, or nobody comes back for it."""
        self._last_run = last_run
        """Number of the newest run when the client came."""
        self._begins_at: LogPosition | None = None
        self._is_position_told = False
        self._keys = DetachKeys(bytes.fromhex(request.detach_keys)) if is_tty else None
        self._link: socket.socket | None = None
        self._connected = asyncio.Event()
        """Set when it is clear whether there is a container to be attached to."""
        self.has_detached = False

    def connect(self, bundle: Path, *, is_begun: bool = True) -> None:
        """Connect now: before the container's command runs, so that no output is lost."""
        if not self._connected.is_set():
            with contextlib.suppress(UnavailableError):
                self._link = connect(bundle)
            if not is_begun and self._log is not None:
                self._begins_at = log_files.end_of(self._log)
            self._connected.set()

    def cancel(self) -> None:
        """The container will not run: end the stream."""
        self._connected.set()

    def close(self) -> None:
        """Let go of the monitor."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._connected.set()

    async def carry(self, instead: Coroutine[Any, Any, None] | None = None) -> None:
        """Carry bytes both ways until the container's output ends or the client leaves.

        `instead` carries the output out of the container's log; what the monitor sends is dropped.
        """
        async with TaskGroup() as tasks:
            inward = tasks.create_task(self._carry_in())
            outward = tasks.create_task(instead or self._carry_out())
            if instead is not None:
                dropping = tasks.create_task(self._carry_out())
                outward.add_done_callback(lambda _: dropping.cancel())
            await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
            inward.cancel()
            outward.cancel()

    def position(self) -> LogPosition | None:
        """Where the output of the run that is waited for will stand; None if none is."""
        if self._log is None or self._connected.is_set():
            return None
        return log_files.end_of(self._log).model_copy(update={"after_run": self._last_run})

    async def _carry_out(self) -> None:
        """Carry output until its end, or until the client takes no more."""
        await self._connected.wait()
        with contextlib.suppress(ConnectionError):
            if self._begins_at is not None:
                await self._tell(self._begins_at)
            while self._link is not None and (packet := await self._packet(self._link)):
                kind = _FROM_CONMON.get(packet[0])
                if kind is not None and self._wanted[kind] and not self._is_resumed:
                    self._is_position_told = False
                    await self._stream.write(self._written(kind, packet[1:]))

    def _written(self, kind: int, payload: bytes) -> bytes:
        if self._is_in_blocks:
            return block(Kind(kind), payload)
        return frame(kind, payload) if self._is_framed else payload

    async def _packet(self, link: socket.socket) -> bytes:
        """The monitor's next packet, none at its end; in silence the client is told where that is in the log.

        The monitor writes what it has read to the log first, and at once to us.
        """
        before: LogPosition | None = None
        while True:
            with contextlib.suppress(BlockingIOError):
                return link.recv(_PACKET)
            is_silence_due = self._log is not None and not self._is_position_told
            if await _is_readable(link, _SILENCE_S if is_silence_due else None):
                continue
            if self._log is not None:
                here = await asyncio.to_thread(log_files.end_of, self._log)
                if here == before:
                    await self._tell(here)
                before = here

    async def _tell(self, position: LogPosition) -> None:
        self._is_position_told = True
        await self._stream.write(block(Kind.POSITION, position.model_dump_json().encode()))

    async def _carry_in(self) -> None:
        """Carry input until the client leaves; its half-close ends the input only."""
        try:
            while not self.has_detached and (data := await self._input.read()):
                if not self._with_stdin:
                    continue
                size = len(data)
                if self._keys is not None:
                    data, self.has_detached = self._keys.feed(data)
                await self._connected.wait()
                await self._type(data)
                if self._is_in_blocks:
                    await self._stream.write(block(Kind.TYPED, size.to_bytes(4)))
        except ConnectionError:
            return
        if self.has_detached:
            return
        async with TaskGroup() as tasks:
            ending = tasks.create_task(self._end_input())
            await self._input.gone()
            ending.cancel()

    async def _end_input(self) -> None:
        await self._connected.wait()
        # Who leaves a terminal does not end it: its keys are none of a stream that has an end.
        if self._with_stdin and self._keys is None and self._link is not None:
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_WR)

    async def _type(self, data: bytes) -> None:
        """Hand input to the monitor; a container that takes no more has its end shown by its output."""
        loop, link = asyncio.get_running_loop(), self._link
        if link is not None:
            with contextlib.suppress(OSError):
                for start in range(0, len(data), _INPUT_PACKET):
                    await loop.sock_sendall(link, data[start : start + _INPUT_PACKET])
