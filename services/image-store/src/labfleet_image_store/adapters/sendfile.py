"""Blobs from the disk to the socket by the kernel: uvicorn's HTTP protocol with the scope extension.

A blob that passes through Python costs ten times the processor time. ASGI has no way for it, and
uvloop's own sendfile reads and writes; so the protocol lends its socket to a thread while the loop
writes nothing there. Rides on uvicorn's internals: pinned, with a contract test.
"""

import asyncio
import os
import select
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "labfleet.sendfile"
_AT_ONCE = 32
_STALL_S = 60.0
"""A client that takes nothing for so long is gone."""
_HEAD_LIMIT_S = 30.0
_PIECE = 8 << 20

SendFile = Callable[[BinaryIO, int, int], Awaitable[bool]]
"""Send bytes of a file as the next of the answer's body: file, first byte, count. False: not now, send
them as others. Raises ConnectionError when the client is gone, OSError when the file is too short."""

_threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sendfile")


class SendFileProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with the extension."""

    _lent: socket.socket | None = None
    _busy = 0

    def on_headers_complete(self) -> None:
        """Offer the extension to the application."""
        offered: dict[str, Any] = {EXTENSION: self._send_file}
        self.scope["extensions"] = offered
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: a thread that still sends hears it."""
        if self._lent is not None:
            _shut(self._lent)
        super().connection_lost(exc)

    async def _send_file(self, file: BinaryIO, first: int, count: int) -> bool:
        cycle, link = self.cycle, self.transport.get_extra_info("socket")
        if link is None or SendFileProtocol._busy >= _AT_ONCE:
            return False
        if cycle.scope["method"] == "HEAD" or cycle.chunked_encoding:
            return False
        SendFileProtocol._busy += 1
        try:
            await self._until_written()
            await self._lend(link.fileno(), file, first, count)
        finally:
            SendFileProtocol._busy -= 1
        cycle.expected_content_length -= count
        return True

    async def _lend(self, link: int, file: BinaryIO, first: int, count: int) -> None:
        """Let a thread send; a loss of the connection and a cancellation end it."""
        self._lent = socket.socket(fileno=os.dup(link))
        try:
            work = asyncio.get_running_loop().run_in_executor(
                _threads, _send, self._lent, file.fileno(), first, count
            )
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                _shut(self._lent)
                await asyncio.wait({work})
                raise
        finally:
            self._lent.close()
            self._lent = None

    async def _until_written(self) -> None:
        """Wait until what the loop has written is with the kernel. Raises ConnectionError."""
        transport = cast("Any", self.transport)
        try:
            async with asyncio.timeout(_HEAD_LIMIT_S):
                while transport.get_write_buffer_size() > 0:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0)
        except TimeoutError as exc:
            raise ConnectionAbortedError("the client takes nothing") from exc
        if self.cycle.disconnected or transport.is_closing():
            raise ConnectionResetError("the client is gone")


def _shut(link: socket.socket) -> None:
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is down already


def _send(link: socket.socket, file: int, first: int, count: int) -> None:
    """In a thread: the socket does not block, so wait for it here."""
    ready = select.poll()
    ready.register(link, select.POLLOUT)
    while count > 0:
        try:
            sent = os.sendfile(link.fileno(), file, first, min(count, _PIECE))
        except BlockingIOError:
            if not ready.poll(_STALL_S * 1000):
                raise ConnectionAbortedError(
                    f"the client took nothing for {_STALL_S:g} s"
                ) from None
            continue
        if sent == 0:
            raise OSError("the file is shorter than it was")
        first, count = first + sent, count - sent
