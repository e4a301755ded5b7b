"""The hijack over a real uvicorn: raw bytes both ways. Guards what it uses of uvicorn's internals."""

import asyncio
import random
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fcntl import ioctl
from pathlib import Path
from socket import AF_UNIX, socket
from termios import TIOCOUTQ
from typing import ClassVar

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from labfleet_api.adapters import hijack
from labfleet_api.adapters.hijack import Hijacked, HijackProtocol, splice, take_over
from labfleet_chassis import web

LIMIT_S = 10
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
SWITCHED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
MANY = random.Random(7).randbytes(8 << 20)
BOUND = 2 << 20
"""More than all buffers on the way, much less than MANY."""


class EchoHost:
    """A host that sends back what it gets, and holds little of it."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._is_over = False
        self._moved = asyncio.Event()

    async def read(self, most: int = 65_536) -> bytes:
        while not self._held and not self._is_over:
            await self._move()
        data = bytes(self._held[:most])
        del self._held[:most]
        self._moved.set()
        return data

    async def write(self, data: bytes) -> None:
        while len(self._held) > 1 << 18:
            await self._move()
        self._held += data
        self._moved.set()

    def write_eof(self) -> None:
        self._is_over = True
        self._moved.set()

    async def _move(self) -> None:
        self._moved.clear()
        await self._moved.wait()


class ShortHost:
    """A host whose command says a word and ends; it takes no input."""

    def __init__(self) -> None:
        self._words = [b"", b"done"]

    async def read(self, most: int = 65_536) -> bytes:
        await until(lambda: not Watched.made[-1].transport.is_reading())
        return self._words.pop()[:most]

    async def write(self, _data: bytes) -> None:
        await asyncio.Event().wait()

    def write_eof(self) -> None:
        """Nothing to close."""


class App:
    """Routes that use a connection in different ways, and what they saw."""

    def __init__(self) -> None:
        self.client: Hijacked | None = None
        self.written = 0
        self.got = bytearray()
        self.may_take = asyncio.Event()
        self.may_go = asyncio.Event()
        self.ended: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        name = request.url.path.removeprefix("/")
        try:
            if name in ("plain", "refuse"):
                await Response(name, 200 if name == "plain" else 404)(scope, receive, send)
            else:
                await getattr(self, name)(request)
        except ClientDisconnect:
            self.ended.append("disconnect")
        finally:
            self.ended.append(name)

    async def _take(self, request: Request) -> Hijacked:
        self.client = await take_over(request, "application/vnd.docker.raw-stream")
        return self.client

    async def echo(self, request: Request) -> None:
        """As exec/start: a body first, then the stream."""
        body = await request.body()
        client = await self._take(request)
        await client.write(b"[" + body + b"]")
        await splice(client, EchoHost())

    async def blind(self, request: Request) -> None:
        """As attach: no body is read."""
        await splice(await self._take(request), EchoHost())

    async def late(self, request: Request) -> None:
        """Take the connection over only when told."""
        await self.may_go.wait()
        await splice(await self._take(request), EchoHost())

    async def deaf(self, request: Request) -> None:
        """Read only when told."""
        client = await self._take(request)
        await self.may_go.wait()
        await self._swallow(client)

    async def drowsy(self, request: Request) -> None:
        """Take the connection over only when told, and read only when told again."""
        await self.may_take.wait()
        await self.deaf(request)

    async def flood(self, request: Request) -> None:
        """Write as much as the client takes."""
        client = await self._take(request)
        for start in range(0, len(MANY), 65_536):
            await client.write(MANY[start : start + 65_536])
            self.written += 65_536
        client.close()

    async def short(self, request: Request) -> None:
        """As a command that ends without reading its input."""
        await splice(await self._take(request), ShortHost())

    async def inward(self, request: Request) -> None:
        """Half-close at once, then read to the end."""
        client = await self._take(request)
        client.write_eof()
        await self._swallow(client)

    async def _swallow(self, client: Hijacked) -> None:
        while data := await client.read():
            self.got += data
        client.close()


class Watched(HijackProtocol):
    """Lets a test see the server's side of its connections."""

    made: ClassVar[list["Watched"]] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        Watched.made.append(self)


@asynccontextmanager
async def serving(tmp_path: Path, app: App) -> AsyncIterator[Path]:
    path = tmp_path / "s"
    listener = socket(AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    Watched.made.clear()
    stopping, started = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(web.serve_http(app, [listener], stopping, started, protocol=Watched))
        await started.wait()
        try:
            yield path
        finally:
            app.may_take.set()
            app.may_go.set()
            stopping.set()


@asynccontextmanager
async def dialled(path: Path) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def request(path: str, headers: bytes = UPGRADE, *, body: bytes = b"", length: int = -1) -> bytes:
    count = length if length >= 0 else len(body)
    head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {count}\r\n"
    return head.encode() + headers + b"\r\n" + body


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the limit is that of the server."""
    while not condition():
        await asyncio.sleep(0.001)


async def deliver(writer: StreamWriter, data: bytes) -> None:
    """Write, and wait until the server has taken all of it from the socket."""
    writer.write(data)
    fd = writer.get_extra_info("socket").fileno()

    def unread() -> int:
        answer = ioctl(fd, TIOCOUTQ, b"\0\0\0\0")
        return int.from_bytes(answer, "little") + writer.transport.get_write_buffer_size()

    await until(lambda: unread() == 0)


async def exchange(path: Path, *pieces: bytes) -> bytes:
    """Send pieces in packets of their own, half-close, and return the whole answer."""
    async with dialled(path) as (reader, writer):
        for piece in pieces:
            await deliver(writer, piece)
        writer.write_eof()
        return await reader.read()


@pytest.fixture
def app() -> App:
    return App()


async def test_an_upgrade_is_answered_with_101(tmp_path: Path, app: App) -> None:
    async with serving(tmp_path, app) as path:
        assert await exchange(path, request("blind"), b"hello") == SWITCHED + b"hello"


async def test_without_an_upgrade_the_answer_is_200_with_the_same_stream(
    tmp_path: Path, app: App
) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        writer.write(request("echo", b"", body=b"{}"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"[{}]hello"


@pytest.mark.parametrize(
    "pieces",
    [
        (request("echo", body=b'{"Tty":1}'),),
        (request("echo", length=9), b'{"Tty":1}'),
        (request("echo", body=b'{"T', length=9), b"ty", b'":1}'),
        (request("echo", length=9)[:30], request("echo", length=9)[30:], b'{"Tty":1}'),
        tuple(bytes([each]) for each in request("echo", body=b'{"Tty":1}')),
    ],
    ids=["one packet", "late", "split", "split head", "byte by byte"],
)
async def test_a_body_is_counted_by_content_length(
    tmp_path: Path, app: App, pieces: tuple[bytes, ...]
) -> None:
    async with serving(tmp_path, app) as path:
        assert await exchange(path, *pieces) == SWITCHED + b'[{"Tty":1}]'


@pytest.mark.parametrize(
    "pieces",
    [
        (request("echo", body=b"{}") + b"early",),
        (request("echo", length=2), b"{}early"),
        (request("echo", body=b"{", length=2), b"}ea", b"rly"),
    ],
    ids=["one packet", "with the late body", "split"],
)
async def test_early_bytes_after_the_body_are_not_lost(
    tmp_path: Path, app: App, pieces: tuple[bytes, ...]
) -> None:
    async with serving(tmp_path, app) as path:
        assert await exchange(path, *pieces) == SWITCHED + b"[{}]early"


async def test_early_bytes_and_an_early_half_close_wait_for_the_application(
    tmp_path: Path, app: App
) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        await deliver(writer, request("late") + b"early")
        writer.write_eof()
        await until(lambda: Watched.made[-1]._has_early_eof)
        app.may_go.set()
        assert await reader.read() == SWITCHED + b"early"


async def test_a_body_that_the_application_does_not_read_is_no_part_of_the_stream(
    tmp_path: Path, app: App
) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        writer.write(request("blind", length=4))
        assert await reader.readexactly(len(SWITCHED)) == SWITCHED
        await deliver(writer, b"bo")
        await deliver(writer, b"dyhello")
        writer.write_eof()
        assert await reader.read() == b"hello"


async def test_an_echo_is_exact_up_to_the_clients_half_close(tmp_path: Path, app: App) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):

        async def send() -> None:
            for start in range(0, len(MANY), 100_000):
                writer.write(MANY[start : start + 100_000])
                await writer.drain()
            writer.write_eof()

        writer.write(request("blind"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            got = await reader.read()
    assert got == SWITCHED + MANY


async def test_input_is_exact_after_the_servers_half_close(tmp_path: Path, app: App) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        writer.write(request("inward"))
        assert await reader.read() == SWITCHED
        for start in range(0, len(MANY), 100_000):
            writer.write(MANY[start : start + 100_000])
            await writer.drain()
        writer.write_eof()
        await until(lambda: app.ended == ["inward"])
    assert bytes(app.got) == MANY


async def test_writing_waits_for_a_client_that_does_not_read(tmp_path: Path, app: App) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        writer.transport.pause_reading()
        writer.write(request("flood"))
        await until(lambda: app.client is not None and not app.client._may_write.is_set())
        assert app.written < BOUND
        assert Watched.made[-1].transport.get_write_buffer_size() < BOUND
        writer.transport.resume_reading()
        assert await reader.read() == SWITCHED + MANY


async def test_reading_waits_for_an_application_that_does_not_read(
    tmp_path: Path, app: App
) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (_, writer):
        writer.write(request("deaf"))
        await until(lambda: app.client is not None)
        writer.write(MANY)
        await until(lambda: not Watched.made[-1].transport.is_reading())
        app.may_go.set()
        writer.write_eof()
        await until(lambda: app.ended == ["deaf"])
    assert bytes(app.got) == MANY


async def test_reading_waits_for_an_application_that_was_late_and_does_not_read(
    tmp_path: Path, app: App
) -> None:
    """Early bytes count too: more than the reader's buffer is there when it begins."""
    early, rest = MANY[: 1 << 20], MANY[1 << 20 :]
    async with serving(tmp_path, app) as path, dialled(path) as (_, writer):
        writer.write(request("drowsy", length=2))
        await deliver(writer, early[:10])  # counted as the body, in part
        await deliver(writer, early[10:])
        writer.write(b"")
        app.may_take.set()
        await until(lambda: app.client is not None)
        writer.write(rest)
        await until(lambda: not Watched.made[-1].transport.is_reading())
        assert app.client is not None
        assert len(app.client._reader._buffer) < BOUND
        app.may_go.set()
        writer.write_eof()
        await until(lambda: app.ended == ["drowsy"])
    assert bytes(app.got) == MANY[2:]


async def test_early_bytes_beyond_a_limit_stay_with_the_client(tmp_path: Path, app: App) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        writer.write(request("late") + MANY)
        await until(lambda: Watched.made != [] and not Watched.made[-1].transport.is_reading())
        assert len(Watched.made[-1]._early) < BOUND
        app.may_go.set()
        writer.write_eof()
        assert await reader.read() == SWITCHED + MANY


async def test_output_ends_whole_for_a_client_that_still_sends(tmp_path: Path, app: App) -> None:
    """As `yes | docker exec -i c true`: a reset would be reported as a failure."""
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        writer.write(request("short") + MANY)
        assert await reader.read() == SWITCHED + b"done"
        await until(lambda: app.ended == ["short"])


async def test_a_client_that_stays_after_the_end_is_closed_in_time(
    tmp_path: Path, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hijack, "_LINGER_S", 0.05)
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        writer.write(request("short") + MANY)
        assert await reader.read() == SWITCHED + b"done"
        await until(lambda: not Watched.made[-1].server_state.connections)


@pytest.mark.parametrize(
    "head",
    [
        request("echo", length=(1 << 20) + 1),
        b"POST /echo HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["too large", "chunked"],
)
async def test_a_body_that_cannot_be_counted_is_refused(
    tmp_path: Path, app: App, head: bytes
) -> None:
    async with serving(tmp_path, app) as path:
        answer = await exchange(path, head)
        await until(lambda: app.ended == ["disconnect", "echo"])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_half_close_within_the_body_ends_the_request(tmp_path: Path, app: App) -> None:
    async with serving(tmp_path, app) as path:
        assert await exchange(path, request("echo", body=b"{", length=2)) == b""
        await until(lambda: app.ended == ["disconnect", "echo"])


@pytest.mark.parametrize("pieces", [(), (b"some",)], ids=["silent", "after some bytes"])
async def test_a_client_that_goes_away_ends_the_handler(
    tmp_path: Path, app: App, pieces: tuple[bytes, ...]
) -> None:
    async with serving(tmp_path, app) as path:
        async with dialled(path) as (reader, writer):
            writer.write(request("blind"))
            await reader.readexactly(len(SWITCHED))
            for piece in pieces:
                await deliver(writer, piece)
        await until(lambda: app.ended == ["blind"])


async def test_a_client_that_goes_away_while_it_does_not_read_ends_the_handler(
    tmp_path: Path, app: App
) -> None:
    async with serving(tmp_path, app) as path:
        async with dialled(path) as (_, writer):
            writer.transport.pause_reading()
            writer.write(request("flood"))
            await until(lambda: app.client is not None and not app.client._may_write.is_set())
        await until(lambda: app.ended == ["flood"])


async def test_ordinary_requests_share_the_connection_with_a_later_upgrade(
    tmp_path: Path, app: App
) -> None:
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        for _ in range(3):
            writer.write(request("plain", b"", body=b"{}"))
            assert (await reader.readuntil(b"plain")).startswith(b"HTTP/1.1 200 OK")
        writer.write(request("blind") + b"raw")
        writer.write_eof()
        assert await reader.read() == SWITCHED + b"raw"
        assert b"plain" in await exchange(path, request("plain", b"Connection: close\r\n"))


async def test_a_pipelined_upgrade_waits_for_its_turn(tmp_path: Path, app: App) -> None:
    async with serving(tmp_path, app) as path:
        answer = await exchange(path, request("plain", b""), request("echo", body=b"{}") + b"raw")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"plain" + SWITCHED + b"[{}]raw")


async def test_an_upgrade_that_is_refused_ends_the_connection(tmp_path: Path, app: App) -> None:
    """What follows such a request is no request: a client must not send another one on it."""
    async with serving(tmp_path, app) as path, dialled(path) as (reader, writer):
        writer.write(request("refuse", body=b"{}"))
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close" in answer
    assert answer.endswith(b"refuse")


async def test_shutdown_ends_an_open_stream(tmp_path: Path, app: App) -> None:
    async with serving(tmp_path, app) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request("blind"))
        await reader.readexactly(len(SWITCHED))
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < web._DRAIN_S
    assert app.ended == ["blind"]
    assert await reader.read() == b""
    writer.transport.abort()


async def test_shutdown_has_a_limit_for_a_client_that_does_not_read(
    tmp_path: Path, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_DRAIN_S", 1)
    async with serving(tmp_path, app) as path:
        _, writer = await asyncio.open_unix_connection(path)
        writer.transport.pause_reading()
        writer.write(request("flood"))
        await until(lambda: app.client is not None and not app.client._may_write.is_set())
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 4
    writer.transport.abort()
