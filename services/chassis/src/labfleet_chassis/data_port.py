"""The data port: byte streams between the api and a host, opened by a signed ticket.

Wire form: the client sends one line, `<base64url of the ticket>.<base64url of its HMAC-SHA256>`;
the server answers one JSON line, a `StreamReply`; from there on both directions are raw bytes with
TCP's own back-pressure and half-close. Before its answer, which may have to wait for a whole image, the
server sends an empty line every few seconds: one that sends none is dead.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from pydantic import JsonValue, ValidationError

from labfleet_chassis.clock import Clock
from labfleet_chassis.lent_socket import LentSocket
from labfleet_chassis.logs import Log
from labfleet_proto.errors import ForbiddenError, LabfleetError, UnavailableError
from labfleet_proto.ids import HostId, TenantId
from labfleet_proto.message import Message
from labfleet_proto.problem import Problem
from labfleet_proto.streams import StreamRequest, Ticket

_LONGEST_LINE = 64 << 10
_BUFFER = 256 << 10
_TICKET_LIFE_S = 30.0
_HEAD_LIMIT_S = 10.0
_SILENCE_S = 15.0
_ALIVE_EVERY_S = 3.0
_MOST_STREAMS = 4096
_QUIET_S = 10
_PROBE_EVERY_S = 5
_PROBES = 3
"""A silent peer is gone after 25 s."""


class StreamReply(Message):
    """The server's first line: a problem, or facts about the stream."""

    problem: Problem | None = None
    detail: dict[str, JsonValue] = {}


class ByteStream:
    """Both directions of one connection; however it broke, that is a ConnectionError here.

    asyncio lets through what the kernel says of a peer that was cut off (ETIMEDOUT, EHOSTUNREACH), and
    uvloop raises RuntimeError for a connection that the peer has reset a moment before.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.detail: dict[str, JsonValue] = {}
        _end_when_cut_off(writer)

    async def read(self, most: int = 65_536) -> bytes:
        """Return at least one byte, or none at the peer's half-close. Raises ConnectionError."""
        with _broken():
            return await self._reader.read(most)

    async def read_exactly(self, count: int) -> bytes:
        """Return so many bytes. Raises ConnectionError, also when they end before."""
        with _broken(asyncio.IncompleteReadError):
            return await self._reader.readexactly(count)

    async def read_line(self) -> bytes:
        """Return a line with its end, none at the peer's half-close. Raises ConnectionError, ValueError."""
        with _broken():
            return await self._reader.readline()

    def at_end(self) -> bool:
        """Whether the peer has half-closed and nothing of it is left to read."""
        return self._reader.at_eof()

    async def write(self, data: bytes) -> None:
        """Write and wait while the peer is slow. Raises ConnectionError."""
        with _broken(RuntimeError):
            self.writer.write(data)
            await self.writer.drain()

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[LentSocket]:
        """Leave the socket to threads; from now on nothing else reads here, nor writes meanwhile.

        Raises ConnectionError.
        """
        transport = self.writer.transport
        transport.set_write_buffer_limits(0)  # to drain is then to hand all to the kernel
        with _broken():
            await self.writer.drain()
        if transport.is_closing():
            raise ConnectionResetError("the peer is gone")
        transport.pause_reading()  # type: ignore[attr-defined]
        self._reader.feed_eof()
        with _broken():
            received = await self._reader.read()
        transport.pause_reading()  # type: ignore[attr-defined] # the reader goes on once it has room
        link = LentSocket(transport.get_extra_info("socket").fileno(), received)
        try:
            yield link
        finally:
            link.close()

    def write_eof(self) -> None:
        """Half-close our direction; again is nothing."""
        if self.writer.can_write_eof() and not self.writer.is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                self.writer.write_eof()

    async def close(self) -> None:
        """Close both directions; what was written is still sent."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.contextmanager
def _broken(kind: type[Exception] = OSError) -> Iterator[None]:
    """Raise ConnectionError for each way in which a connection breaks."""
    try:
        yield
    except ConnectionError:
        raise
    except (OSError, kind) as exc:
        raise ConnectionResetError(str(exc)) from exc


def _end_when_cut_off(writer: asyncio.StreamWriter) -> None:
    """Let the kernel end a connection whose other side is cut off while nothing is said.

    Not by TCP_USER_TIMEOUT: that also ends one whose reader pauses.
    """
    link = writer.get_extra_info("socket")
    if link is None or link.family == socket.AF_UNIX:
        return
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


Accept = Callable[[dict[str, JsonValue]], Awaitable[None]]
"""Called once by a handler, with the reply's detail, before it writes any byte."""
StreamHandler = Callable[[Ticket, ByteStream, Accept], Awaitable[None]]
"""Serves one stream; a `LabfleetError` before `accept` is answered as the reply's problem."""


def seal(ticket: Ticket, key: bytes) -> bytes:
    """Sign a ticket."""
    body = base64.urlsafe_b64encode(ticket.model_dump_json().encode())
    mac = base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256))
    return body + b"." + mac


def unseal(line: bytes, key: bytes) -> Ticket:
    """Verify and parse a ticket. Raises ForbiddenError."""
    body, _, mac = line.strip().partition(b".")
    good = base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256))
    if not hmac.compare_digest(mac, good):
        raise ForbiddenError("data port: the ticket's signature is wrong")
    try:
        return Ticket.model_validate_json(base64.urlsafe_b64decode(body))
    except (ValidationError, ValueError) as exc:
        raise ForbiddenError(f"data port: the ticket cannot be read: {exc}") from exc


@contextlib.asynccontextmanager
async def dial(  # noqa: PLR0913 - address, ticket and key
    address: str,
    port: int,
    request: StreamRequest,
    *,
    host: HostId,
    tenant: TenantId,
    key: bytes,
    clock: Clock,
    silence_s: float = _SILENCE_S,
) -> AsyncIterator[ByteStream]:
    """Open a stream on a host; `ByteStream.detail` holds what the host said of it.

    Until its answer it may give no sign of life for `silence_s`.

    Raises:
        LabfleetError: what the host's handler raised before it accepted.
        UnavailableError: the host cannot be reached, says nothing, or nothing that makes sense.
    """
    peer = f"data port of {host} at {address}:{port}"
    ticket = Ticket(
        host=host,
        tenant=tenant,
        request=request,
        expires_at_ns=clock.now_ns() + int(_TICKET_LIFE_S * 1e9),
        nonce=secrets.token_hex(16),
    )
    try:
        async with asyncio.timeout(_HEAD_LIMIT_S):
            reader, writer = await asyncio.open_connection(address, port, limit=_BUFFER)
    except (OSError, TimeoutError) as exc:
        why = str(exc) or type(exc).__name__
        raise UnavailableError(f"{peer}: {why}") from exc
    stream = ByteStream(reader, writer)
    try:
        reply = await _answer(stream, seal(ticket, key), peer, silence_s)
        if reply.problem is not None:
            raise reply.problem.to_error()
        stream.detail = reply.detail
        yield stream
    finally:
        await stream.close()


async def _answer(stream: ByteStream, ticket: bytes, peer: str, silence_s: float) -> StreamReply:
    """Send a ticket and wait for its answer. Raises UnavailableError."""
    line = b"\n"
    try:
        await stream.write(ticket + b"\n")
        while line == b"\n":
            async with asyncio.timeout(silence_s):
                line = await stream.read_line()
        if not line:
            raise UnavailableError(f"{peer}: closed before its answer")
        return StreamReply.model_validate_json(line)
    except TimeoutError as exc:
        raise UnavailableError(f"{peer}: no answer in {silence_s:g} s") from exc
    except OSError as exc:
        raise UnavailableError(f"{peer}: broke off before its answer: {exc}") from exc
    except ValueError as exc:  # a line without end, too
        raise UnavailableError(f"{peer}: its answer is nonsense: {line[:80]!r}") from exc


class _Preparing:
    """The time before a stream's answer: whoever waits for it hears now and then that it will come."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._beat()

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_ALIVE_EVERY_S, self._say)

    def _say(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(b"\n")
            self._beat()

    def end(self) -> None:
        """The answer comes now; again is nothing."""
        self._timer.cancel()


class DataPort:
    """The server's side."""

    def __init__(
        self, handler: StreamHandler, *, host: HostId, key: bytes, clock: Clock, log: Log
    ) -> None:
        self._handler = handler
        self._host = host
        self._key = key
        self._clock = clock
        self._log = log
        self._used: dict[str, int] = {}
        self._open: set[asyncio.Task[None] | None] = set()
        """Once its peer has half-closed, nothing else keeps a stream's task from the collector."""

    @contextlib.asynccontextmanager
    async def listening(self, address: str, port: int) -> AsyncIterator[int]:
        """Listen; yields the port. Streams still open at the end are cut."""
        server = await asyncio.start_server(self._serve, address, port, limit=_BUFFER)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()

    def _check(self, line: bytes) -> Ticket:
        ticket = unseal(line, self._key)
        now = self._clock.now_ns()
        if ticket.host != self._host:
            raise ForbiddenError(f"data port: ticket is for host {ticket.host}")
        if ticket.expires_at_ns < now:
            raise ForbiddenError("data port: the ticket has expired")
        self._used = {nonce: end for nonce, end in self._used.items() if end >= now}
        if ticket.nonce in self._used:
            raise ForbiddenError("data port: the ticket was used already")
        self._used[ticket.nonce] = ticket.expires_at_ns
        return ticket

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = ByteStream(reader, writer)
        preparing = _Preparing(writer)
        is_accepted = False

        async def accept(detail: dict[str, JsonValue]) -> None:
            nonlocal is_accepted
            is_accepted = True
            preparing.end()
            await stream.write(StreamReply(detail=detail).model_dump_json().encode() + b"\n")

        self._open.add(asyncio.current_task())
        try:
            if len(self._open) > _MOST_STREAMS:
                raise UnavailableError(f"data port of {self._host}: {_MOST_STREAMS} streams open")
            async with asyncio.timeout(_HEAD_LIMIT_S):
                line = await reader.readuntil(b"\n")
            if len(line) > _LONGEST_LINE:
                raise ForbiddenError("data port: the ticket is too long")
            await self._handler(self._check(line), stream, accept)
        except LabfleetError as exc:
            if is_accepted:
                self._log.warning("stream.failed", error=exc.message)
            else:
                preparing.end()
                reply = StreamReply(problem=exc.to_problem())
                with contextlib.suppress(ConnectionError):
                    await stream.write(reply.model_dump_json().encode() + b"\n")
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError) as exc:
            self._log.debug("stream.cut", error=str(exc))
        except asyncio.LimitOverrunError:
            self._log.warning("stream.refused", error="first line too long")
        except Exception:  # noqa: BLE001 - the top of a stream: logged once
            self._log.exception("stream.failed")
        finally:
            preparing.end()
            await stream.close()
            self._open.discard(asyncio.current_task())
