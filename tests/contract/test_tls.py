"""TLS inside the protocol over a real uvicorn: each direction closes alone, and nothing is said in plain text."""

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from labfleet_api.adapters import peer, tls
from labfleet_api.adapters.hijack import HijackProtocol, take_over
from labfleet_chassis import web
from labfleet_cli.authority import Authority, Issued

LIMIT_S = 20
MANY = random.Random(3).randbytes(12 << 20)
UPGRADE = b"POST /%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class App:
    """Routes that use a connection in different ways, and who came."""

    def __init__(self) -> None:
        self.peers: list[peer.Peer] = []
        self.got = bytearray()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.peers.append(scope["extensions"][peer.EXTENSION])
        assert scope["scheme"] == "https"
        name = request.url.path.removeprefix("/")
        if name == "plain":
            await Response(name)(scope, receive, send)
            return
        client = await take_over(request, "application/vnd.docker.raw-stream")
        if name == "echo":
            while data := await client.read(1 << 18):
                await client.write(data)
        elif name == "late":  # as exec whose client has no input: all output comes after its end
            assert await client.read() == b""
            await client.write(MANY)
        elif name == "inward":
            client.write_eof()
            while data := await client.read():
                self.got += data
        client.close()


class Client:
    """A TLS client that can half-close, which Python's own sockets cannot."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._address = ("127.0.0.1", port)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(*self._address)
        try:
            await self._shake_hands()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                await self._more()
        self._flush()

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def _flush(self) -> None:
        if self._out.pending:
            self.writer.write(self._out.read())

    async def _more(self) -> None:
        data = await self.reader.read(1 << 18)
        if not data:
            raise EOFError
        self._in.write(data)

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 16):
            self._tls.write(data[start : start + (1 << 16)])
            self._flush()
            await self.writer.drain()

    async def end(self) -> None:
        with suppress(ssl.SSLError):  # the peer's end is still to come
            self._tls.unwrap()
        self._flush()
        await self.writer.drain()

    async def read(self) -> bytes:
        """Some bytes; none at the peer's close_notify."""
        while True:
            try:
                return self._tls.read(1 << 18)
            except ssl.SSLWantReadError:
                await self._more()
            except ssl.SSLZeroReturnError:
                return b""

    async def read_all(self) -> bytes:
        found = bytearray()
        while data := await self.read():
            found += data
        return bytes(found)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("tls")
    made = Authority(directory)
    made.ensure_server(["127.0.0.1"])
    return made


def context_of(
    authority: Authority, tmp_path: Path, issued: Issued | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.ca.decode())
    if issued is not None:
        file = tmp_path / "client.pem"
        file.write_bytes(issued.key + issued.certificate)
        context.load_cert_chain(file)
    return context


@asynccontextmanager
async def serving(authority: Authority, app: App) -> AsyncIterator[int]:
    stopping, started = asyncio.Event(), asyncio.Event()
    protocol = tls.over_tls(tls.server_context(authority._dir), HijackProtocol)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(web.serve_http(app, [listener], stopping, started, protocol=protocol))
        await started.wait()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
    listener.close()


async def head(client: Client) -> bytes:
    """What follows the answer's head."""
    got = b""
    while b"\r\n\r\n" not in got:
        data = await client.read()
        assert data, got
        got += data
    assert got.startswith(b"HTTP/1.1 101"), got
    return got.partition(b"\r\n\r\n")[2]


async def test_bytes_go_both_ways_and_all_come_back_after_a_half_close(
    authority: Authority, tmp_path: Path
) -> None:
    async with serving(authority, App()) as port:
        async with Client(port, context_of(authority, tmp_path)) as client:
            await client.send(UPGRADE % b"echo")
            got = await head(client)

            async def up() -> None:
                await client.send(MANY)
                await client.end()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(up())
                rest = tasks.create_task(client.read_all())
            assert got + rest.result() == MANY


async def test_a_client_that_ends_at_once_hears_everything(
    authority: Authority, tmp_path: Path
) -> None:
    async with serving(authority, App()) as port:
        async with Client(port, context_of(authority, tmp_path)) as client:
            await client.send(UPGRADE % b"late")
            await client.end()
            assert await head(client) + await client.read_all() == MANY


async def test_what_comes_after_our_own_end_is_read(authority: Authority, tmp_path: Path) -> None:
    app = App()
    async with serving(authority, app) as port:
        async with Client(port, context_of(authority, tmp_path)) as client:
            await client.send(UPGRADE % b"inward")
            assert await head(client) + await client.read_all() == b""
            await client.send(MANY[:1_000_000])
            await client.end()
            while len(app.got) < 1_000_000:
                await asyncio.sleep(0.01)
    assert bytes(app.got) == MANY[:1_000_000]


async def test_requests_are_answered_one_after_the_other(
    authority: Authority, tmp_path: Path
) -> None:
    async with serving(authority, App()) as port:
        async with Client(port, context_of(authority, tmp_path)) as client:
            for _ in range(3):
                await client.send(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
                got = b""
                while not got.endswith(b"plain"):
                    got += await client.read()


async def test_the_application_hears_of_the_clients_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    app = App()
    issued = authority.client("alice", timedelta(days=1))
    async with serving(authority, app) as port:
        for context in (
            context_of(authority, tmp_path, issued),
            context_of(authority, tmp_path),
        ):
            async with Client(port, context) as client:
                await client.send(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
                await client.read()
    assert [each.fingerprint for each in app.peers] == [issued.fingerprint, None]
    assert not any(each.is_local for each in app.peers)


async def test_a_certificate_of_another_authority_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other").client("alice", timedelta(days=1))
    async with serving(authority, App()) as port:
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            await _ask(Client(port, context_of(authority, tmp_path, other)))


async def _ask(client: Client) -> None:
    """Raises what TLS says; EOFError for an end without a word."""
    async with client:
        await client.send(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not await client.read()
        raise EOFError


async def test_plain_text_is_not_answered(authority: Authority) -> None:
    async with serving(authority, App()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in await reader.read()
        writer.transport.abort()


async def test_a_handshake_that_does_not_end_is_cut(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_HANDSHAKE_LIMIT_S", 0.2)
    async with serving(authority, App()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.transport.abort()
        assert tls.TlsConnection._shaking == 0


async def test_too_many_handshakes_at_once_are_refused(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tls, "_MOST_HANDSHAKES", 1)
    async with serving(authority, App()) as port:
        _, first = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((EOFError, ConnectionError)):
            await _ask(Client(port, context_of(authority, tmp_path)))
        first.transport.abort()
