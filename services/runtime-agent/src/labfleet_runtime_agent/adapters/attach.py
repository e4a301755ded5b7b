"""Attaching to a container's streams through its monitor's socket."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import UnavailableError
from labfleet_proto.runtime import AttachContainer
from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame

_PACKET = 32 << 10
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
        self._request = request
        self._stream = stream
        self._is_tty = is_tty
        self._connected: asyncio.Future[socket.socket | None] = (
            asyncio.get_running_loop().create_future()
        )

    def connect(self, bundle: Path) -> None:
        """Connect now: before the container's command runs, so that no output is lost."""
        if not self._connected.done():
            try:
                self._connected.set_result(connect(bundle))
            except UnavailableError:
                self._connected.set_result(None)

    def cancel(self) -> None:
        """The container will not run: end the stream."""
        if not self._connected.done():
            self._connected.set_result(None)

    async def carry(self) -> None:
        """Carry bytes both ways until the container's output ends or the client goes away."""
        gone = asyncio.ensure_future(self._peer_gone())  # noqa: TID251 - awaited below
        waits: set[asyncio.Future[Any]] = {gone, self._connected}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        link = self._connected.result() if self._connected.done() else None
        if link is None:
            self._connected.cancel()
            return
        with contextlib.closing(link):
            async with TaskGroup() as tasks:
                stdin = tasks.create_task(self._carry_in(link))
                await self._carry_out(link)
                stdin.cancel()

    async def _peer_gone(self) -> None:
        """Return when the client closes before the container runs; a half-close is not that."""
        await self._stream.writer.wait_closed()

    async def _carry_out(self, link: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        wanted = {STDOUT: self._request.with_stdout, STDERR: self._request.with_stderr}
        while packet := await loop.sock_recv(link, _PACKET):
            stream = _FROM_CONMON.get(packet[0])
            if stream is None or not wanted[stream]:
                continue
            payload = packet[1:]
            await self._stream.write(payload if self._is_tty else frame(stream, payload))
        self._stream.write_eof()

    async def _carry_in(self, link: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError, OSError):
            while data := await self._stream.read():
                if self._request.with_stdin:
                    for start in range(0, len(data), 8192):
                        await loop.sock_sendall(link, data[start : start + 8192])
            if self._request.with_stdin:
                link.shutdown(socket.SHUT_WR)
