"""Attaching to a container's streams through its monitor's socket."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.input_frames import InputReader
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import UnavailableError
from labfleet_proto.runtime import AttachContainer
from labfleet_runtime_agent.core.detach_keys import DetachKeys
from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame

_PACKET = 32 << 10
_INPUT_PACKET = 8192
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


class Attachment:
    """One client attached to one container, maybe before the container runs."""

    def __init__(self, request: AttachContainer, stream: ByteStream, *, is_tty: bool) -> None:
        self._stream = stream
        self._input = InputReader(stream)
        self._is_framed = request.is_framed and not is_tty
        self._wanted = {STDOUT: request.with_stdout, STDERR: request.with_stderr}
        self._with_stdin = request.with_stdin
        self._keys = DetachKeys(bytes.fromhex(request.detach_keys)) if is_tty else None
        self._link: socket.socket | None = None
        self._connected = asyncio.Event()
        """Set when it is clear whether there is a container to be attached to."""
        self.has_detached = False

    def connect(self, bundle: Path) -> None:
        """Connect now: before the container's command runs, so that no output is lost."""
        if not self._connected.is_set():
            with contextlib.suppress(UnavailableError):
                self._link = connect(bundle)
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

    async def carry(self) -> None:
        """Carry bytes both ways until the container's output ends or the client leaves."""
        async with TaskGroup() as tasks:
            inward = tasks.create_task(self._carry_in())
            outward = tasks.create_task(self._carry_out())
            await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
            inward.cancel()
            outward.cancel()

    async def _carry_out(self) -> None:
        """Carry output until its end, or until the client takes no more."""
        await self._connected.wait()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while self._link is not None and (packet := await loop.sock_recv(self._link, _PACKET)):
                kind = _FROM_CONMON.get(packet[0])
                if kind is not None and self._wanted[kind]:
                    payload = packet[1:]
                    await self._stream.write(frame(kind, payload) if self._is_framed else payload)

    async def _carry_in(self) -> None:
        """Carry input until the client leaves; its half-close ends the input only."""
        try:
            while not self.has_detached and (data := await self._input.read()):
                if not self._with_stdin:
                    continue
                if self._keys is not None:
                    data, self.has_detached = self._keys.feed(data)
                await self._connected.wait()
                await self._type(data)
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
