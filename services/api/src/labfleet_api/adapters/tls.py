"""TLS inside the protocol, for the docker command line over TCP.

The loop's own TLS closes both directions on the peer's close_notify, so all output of `docker exec`
is lost: docker half-closes as soon as its stdin is done. Here the listener is plain TCP for the
loop, and TLS runs over memory buffers: each direction closes alone, as on a plain socket.
"""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from labfleet_api.adapters.peer import FINGERPRINT

_HANDSHAKE_LIMIT_S = 10.0
_MOST_HANDSHAKES = 512
_CHUNK = 256 << 10

Inner = Callable[..., asyncio.Protocol]


def server_context(directory: Path) -> ssl.SSLContext:
    """Load what `labfleet up --tls` made. Client certificates of our own authority are taken, not required.

    Raises OSError, ssl.SSLError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(directory / "server.pem", directory / "server-key.pem")
    context.load_verify_locations(directory / "ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsTransport(asyncio.Transport):
    """The transport that the HTTP protocol sees: what it writes goes out encrypted."""

    def __init__(self, raw: asyncio.Transport, context: ssl.SSLContext) -> None:
        super().__init__()
        self._raw = raw
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._protocol: asyncio.BaseProtocol | None = None
        self._is_closing = False
        self._has_sent_end = False
        self._fingerprint: str | None = None

    # -- for the connection

    def shake_hands(self) -> bool:
        """Go on with the handshake; whether it is done. Raises ssl.SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        self._flush()
        certificate = self._tls.getpeercert(binary_form=True)
        if certificate is not None:
            self._fingerprint = hashlib.sha256(certificate).hexdigest()
        return True

    def take(self, data: bytes) -> None:
        """Take bytes from the wire."""
        self._incoming.write(data)

    def plain(self) -> Iterable[bytes]:
        """Yield what has come, decrypted; an empty piece is the peer's end. Raises ssl.SSLError."""
        while not self._is_closing:
            try:
                data = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            yield data
            if not data:
                break
        self._flush()  # answers of the TLS layer itself

    @property
    def has_sent_end(self) -> bool:
        """Whether our direction is closed."""
        return self._has_sent_end

    def answer_alert(self) -> None:
        """Send what TLS says of a failure, then close."""
        self._flush()
        self._is_closing = True
        self._raw.close()

    def lost(self) -> None:
        """The connection is gone."""
        self._is_closing = True

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    # -- asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; nothing after the end."""
        if data and not self._is_closing and not self._has_sent_end:
            self._tls.write(data)
            self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send pieces as one."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Unlike asyncio's own TLS."""
        return True

    def write_eof(self) -> None:
        """Close our direction: close_notify, then the socket's half."""
        if self._has_sent_end:
            return
        self._has_sent_end = True
        with contextlib.suppress(ssl.SSLError):  # the peer's own end, or data, is still to come
            self._tls.unwrap()
        self._flush()
        if not self._raw.is_closing() and self._raw.can_write_eof():
            self._raw.write_eof()

    def close(self) -> None:
        """Close both directions; what was written is still sent."""
        if not self._is_closing:
            self.write_eof()
            self._is_closing = True
            self._raw.close()

    def abort(self) -> None:
        """Drop the connection."""
        self._is_closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._is_closing or self._raw.is_closing()

    def is_reading(self) -> bool:
        """Whether bytes are taken from the wire."""
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        """Take no more bytes from the wire."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Limits of what waits to be sent, encrypted."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return self._raw.get_write_buffer_size()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who hears of decrypted bytes from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who hears of decrypted bytes. Raises RuntimeError before the handshake."""
        if self._protocol is None:
            raise RuntimeError("the handshake is not done")
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts of the connection; `FINGERPRINT` is that of the client's certificate, if it has one."""
        match name:
            case "ssl_object" | "sslcontext":
                return self._tls
            case "peercert":
                return self._tls.getpeercert()
            case _ if name == FINGERPRINT:
                return self._fingerprint
        return self._raw.get_extra_info(name, default)


class TlsConnection(asyncio.Protocol):
    """One connection: a handshake with a limit, then the inner protocol over a `TlsTransport`.

    What does not speak TLS is closed: nothing is ever answered in plain text.
    """

    _shaking = 0

    def __init__(self, context: ssl.SSLContext, inner: Inner, arguments: dict[str, Any]) -> None:
        self._context = context
        self._inner = inner
        self._arguments = arguments
        self._transport: TlsTransport | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._is_up = False
        self._has_peer_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake; refuse when too many are under way."""
        raw = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if TlsConnection._shaking >= _MOST_HANDSHAKES:
            raw.abort()
            return
        self._transport = TlsTransport(raw, self._context)
        self._limit = asyncio.get_running_loop().call_later(_HANDSHAKE_LIMIT_S, raw.abort)
        TlsConnection._shaking += 1

    def data_received(self, data: bytes) -> None:
        """Take bytes from the wire."""
        link = self._transport
        if link is None:
            return
        link.take(data)
        try:
            if not self._is_up and not self._shake_hands(link):
                return
            self._hand_on(link)
        except ssl.SSLError:
            # After our own end the peer's bytes cannot always be read any more: they are dropped.
            if not link.has_sent_end:
                link.answer_alert()

    def _shake_hands(self, link: TlsTransport) -> bool:
        if not link.shake_hands():
            return False
        self._end_shaking()
        self._is_up = True
        protocol = self._inner(**self._arguments)
        link.set_protocol(protocol)
        protocol.connection_made(link)
        return True

    def _end_shaking(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
            TlsConnection._shaking -= 1

    def _hand_on(self, link: TlsTransport) -> None:
        for data in link.plain():
            if not data:
                self._peer_ended(link)
                return
            protocol = link.get_protocol()
            if isinstance(protocol, asyncio.BufferedProtocol):
                _fill(protocol, data)
            elif isinstance(protocol, asyncio.Protocol):
                protocol.data_received(data)

    def _peer_ended(self, link: TlsTransport) -> None:
        if self._has_peer_end or not self._is_up:
            return
        self._has_peer_end = True
        protocol = link.get_protocol()
        if isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol):
            stays = protocol.eof_received()
            if stays:
                return
        link.close()

    def eof_received(self) -> bool:
        """The socket's half is closed: also an end of the stream."""
        if self._transport is not None:
            if not self._is_up:
                return False
            self._peer_ended(self._transport)
        return True

    def pause_writing(self) -> None:
        """The peer is slow."""
        if self._transport is not None and self._is_up:
            self._transport.get_protocol().pause_writing()

    def resume_writing(self) -> None:
        """The peer takes more."""
        if self._transport is not None and self._is_up:
            self._transport.get_protocol().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end_shaking()
        if self._transport is not None:
            self._transport.lost()
            if self._is_up:
                self._transport.get_protocol().connection_lost(exc)


def _fill(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    left = memoryview(data)
    while left:
        buffer = memoryview(protocol.get_buffer(len(left)))
        count = min(len(buffer), len(left))
        buffer[:count] = left[:count]
        protocol.buffer_updated(count)
        left = left[count:]


def over_tls(context: ssl.SSLContext, inner: Inner) -> Inner:
    """An HTTP protocol for uvicorn that speaks TLS and is `inner` within."""

    def connection(**arguments: Any) -> asyncio.Protocol:
        return TlsConnection(context, inner, arguments)

    return connection
