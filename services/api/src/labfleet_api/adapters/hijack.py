"""Docker's hijack on uvicorn: after `101 UPGRADED` the connection is raw bytes both ways.

ASGI cannot do that, so the protocol class offers it as the scope extension `docker.hijack`. llhttp
stops right after the head of a request with `Upgrade: tcp`; the body that follows it (exec/start has
one) is counted by Content-Length here. Rides on uvicorn's internals: pinned, with a contract test.
"""

import asyncio
import contextlib
import fcntl
import socket
import termios
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import httptools
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from labfleet_api.adapters import peer
from labfleet_api.metrics import STREAMS
from labfleet_chassis.tasks import TaskGroup

EXTENSION = "docker.hijack"
_MOST_BODY = 1 << 20
_READ_BUFFER = 256 << 10
_LINGER_S = 5.0
_HEAD_LIMIT_S = 0.1
_HEAD_PAUSE_S = 0.0005

Hijack = Callable[[bytes], Awaitable["Hijacked"]]


class Peer(Protocol):
    """What `splice` needs of the host's side; the chassis' `ByteStream` has it."""

    async def read(self, most: int = ...) -> bytes:
        """Return bytes, none at the end."""

    async def write(self, data: bytes) -> None:
        """Write and wait while the peer is slow."""

    def write_eof(self) -> None:
        """Half-close."""


class Client(Protocol):
    """What `splice` needs of the client's side."""

    @property
    def lost(self) -> asyncio.Event:
        """Set when the client is gone."""

    async def read(self, most: int = ...) -> bytes:
        """Return bytes, none at the client's half-close."""

    async def write(self, data: bytes) -> None:
        """Write and wait while the client is slow."""

    async def finish(self) -> None:
        """There is no more output."""

    def close(self) -> None:
        """Close both directions."""


class Hijacked:
    """The raw connection. Reading and writing wait for the peer; both halves close alone."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._has_eof = False
        self._lingering: asyncio.TimerHandle | None = None
        self._reader = asyncio.StreamReader(limit=_READ_BUFFER, loop=loop)
        self._reader.set_transport(transport)
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.lost = asyncio.Event()
        """Set when the connection is gone, not merely half-closed."""

    async def read(self, most: int = 65_536) -> bytes:
        """Return at least one byte, or none at the peer's half-close."""
        return await self._reader.read(most)

    async def write(self, data: bytes) -> None:
        """Write and wait while the peer is slow. Raises ConnectionError when it is gone."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        await self._may_write.wait()

    def write_eof(self) -> None:
        """Half-close our direction."""
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    async def finish(self) -> None:
        """There is no more output: nothing to say, the close says it."""

    def close(self) -> None:
        """Close both directions; what was written is still sent.

        What the client still sends is taken and dropped until it closes too, five seconds at most:
        a close with unread bytes would be a reset, which docker's client reports as a failure.
        """
        if self._has_eof or self._transport.is_closing():
            self._transport.close()
        elif self._lingering is None:
            self.write_eof()
            self._lingering = self._loop.call_later(_LINGER_S, self._transport.close)
            if not self._transport.is_reading():
                self._transport.resume_reading()

    # -- called by the protocol

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire."""
        if self._lingering is None:
            self._reader.feed_data(data)

    def feed_eof(self) -> None:
        """The peer closed its half."""
        self._has_eof = True
        self._reader.feed_eof()
        if self._lingering is not None:
            self._transport.close()

    def pause(self) -> None:
        """The peer is slow."""
        self._may_write.clear()

    def resume(self) -> None:
        """The peer takes more."""
        self._may_write.set()

    def end(self) -> None:
        """The connection is gone."""
        if self._lingering is not None:
            self._lingering.cancel()
        if not self.lost.is_set():
            self.lost.set()
            self._reader.feed_eof()
            self._may_write.set()


class HijackProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with the extension."""

    _hijacked: Hijacked | None = None
    _early = b""
    _is_upgrade = False
    _has_early_eof = False
    _missing_body = 0

    def data_received(self, data: bytes) -> None:
        """Take bytes from the wire."""
        if self._hijacked is not None:
            # An application may take over before the body has come: it is no part of the stream.
            stream = data[self._missing_body :]
            self._missing_body -= len(data) - len(stream)
            if stream:
                self._hijacked.feed(stream)
            return
        if self._is_upgrade:
            self._take_body(data)
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._begin_upgrade(data[exc.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _begin_upgrade(self, rest: bytes) -> None:
        names = dict(self.headers)
        length = names.get(b"content-length", b"0")
        if b"transfer-encoding" in names or not length.isdigit() or int(length) > _MOST_BODY:
            self.send_400_response("An Upgrade request needs a Content-Length of at most 1 MiB.")
            return
        self._is_upgrade = True
        # What follows is no request: an answer that is not the hijack ends the connection.
        self.cycle.keep_alive = False
        self._missing_body = int(length)
        self._take_body(rest)

    def _take_body(self, data: bytes) -> None:
        body = data[: self._missing_body]
        self._early += data[self._missing_body :]
        if len(self._early) > _MOST_BODY:
            self.transport.pause_reading()
        self._missing_body -= len(body)
        if not self.cycle.response_complete:
            self.cycle.body += body
            self.cycle.more_body = self._missing_body > 0
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """A request's end; that of an Upgrade request is counted by `_take_body`."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Offer the extension to the application."""
        offered: dict[str, Any] = {
            EXTENSION: self._hijack,
            peer.EXTENSION: peer.peer_of(self.transport),
        }
        self.scope["extensions"] = offered
        super().on_headers_complete()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep our half open once the stream is raw."""
        if self._hijacked is not None:
            self._hijacked.feed_eof()
            return True
        if self._is_upgrade and self._missing_body == 0:
            self._has_early_eof = True
            return True
        return None

    def pause_writing(self) -> None:
        """The peer is slow."""
        if self._hijacked is not None:
            self._hijacked.pause()
        else:
            super().pause_writing()

    def resume_writing(self) -> None:
        """The peer takes more."""
        if self._hijacked is not None:
            self._hijacked.resume()
        else:
            super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._hijacked is not None:
            self._hijacked.end()
        super().connection_lost(exc)

    async def _hijack(self, head: bytes) -> Hijacked:
        """Write `head`, a whole response head, and give the connection away."""
        taken = Hijacked(self.transport, self.loop)
        self._hijacked = taken
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if not self.transport.is_closing() and not self.transport.is_reading():
            self.transport.resume_reading()
        if self._early:  # after the resume: the reader may pause again
            taken.feed(self._early)
            self._early = b""
        if self._has_early_eof:
            taken.feed_eof()
        if self.cycle.disconnected or self.transport.is_closing():
            taken.end()
        # The response is ours now: uvicorn must neither add to it nor close the transport.
        self.cycle.response_started = True
        self.cycle.response_complete = True
        self.transport.write(head)
        await _until_read(self.transport)
        return taken


async def _until_read(transport: asyncio.Transport) -> None:
    """Wait shortly until a client on a unix socket has read the head.

    docker-py reads the head through a buffer and the stream past it: bytes that come with the head are lost to it.
    """
    link = transport.get_extra_info("socket")
    if link is None or link.family != socket.AF_UNIX:
        return
    with contextlib.suppress(TimeoutError, OSError):  # a client that does not read, or is gone
        async with asyncio.timeout(_HEAD_LIMIT_S):
            while _unread(link.fileno()):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(_HEAD_PAUSE_S)


def _unread(descriptor: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), "little")


async def take_over(request: Request, media_type: str) -> Hijacked:
    """Answer 101 (or 200 to a client that did not ask for an upgrade) and return the raw connection.

    Raises RuntimeError when the server has no hijack (a test client).
    """
    if request.headers.get("upgrade"):
        lines = [
            "HTTP/1.1 101 UPGRADED",
            f"Content-Type: {media_type}",
            "Connection: Upgrade",
            "Upgrade: tcp",
        ]
    else:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {media_type}"]
    return await take_over_with(request, lines)


async def take_over_with(request: Request, lines: Sequence[str]) -> Hijacked:
    """Answer with these lines as the whole head and return the raw connection. Raises RuntimeError."""
    extensions: dict[str, Any] = request.scope.get("extensions") or {}
    hijack: Hijack | None = extensions.get(EXTENSION)
    if hijack is None:
        raise RuntimeError("this server cannot hijack connections")
    return await hijack("".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii"))


async def splice(client: Client, host: Peer) -> None:
    """Carry bytes both ways until the host's side ends or the client is gone.

    A half-close of the client is handed on; the end of the host's output ends the connection.
    """

    async def up() -> None:
        while data := await client.read():
            await host.write(data)
        if not client.lost.is_set():
            host.write_eof()

    async def down() -> None:
        while data := await host.read():
            await client.write(data)
        await client.finish()

    with STREAMS.track_inprogress():
        tasks: set[asyncio.Task[Any]] = set()
        try:
            async with TaskGroup() as group:
                upward = group.create_task(_quiet(up()))
                downward = group.create_task(_quiet(down()))
                gone = group.create_task(client.lost.wait())
                tasks = {upward, downward, gone}
                await asyncio.wait({downward, gone}, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        finally:
            client.close()


async def _quiet(carry: Awaitable[None]) -> None:
    """A connection that breaks is an end, not a failure."""
    try:
        await carry
    except (ConnectionError, OSError, RuntimeError):
        return
