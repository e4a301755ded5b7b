"""Blobs by sendfile over a real uvicorn: right bytes, keep-alive, and no thread left with a lost client."""

import asyncio
import random
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from labfleet_chassis import web
from labfleet_image_store.adapters import sendfile
from labfleet_image_store.adapters.sendfile import EXTENSION, SendFileProtocol

LIMIT_S = 20
MANY = random.Random(11).randbytes(24 << 20)
"""More than all buffers on the way."""

Run = Callable[[Callable[[], Awaitable[None]]], None]


class App:
    """Serves a file, by the path `/first/count`; a path that claims more than there is, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.errors: list[OSError] = []
        self.sent: list[bool] = []

    async def __call__(self, scope: dict[str, Any], _receive: object, send: Any) -> None:
        first, count = (int(word) for word in scope["path"].strip("/").split("/"))
        length = [(b"content-length", str(count).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        with self._path.open("rb") as file:
            try:
                self.sent.append(await scope["extensions"][EXTENSION](file, first, count))
            except OSError as exc:
                self.errors.append(exc)
                return
            rest = b"" if self.sent[-1] else MANY[first : first + count]
            await send({"type": "http.response.body", "body": rest})


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def work(main: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT_S):
                await main()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(limited())

    return work


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    path = tmp_path / "blob"
    path.write_bytes(MANY)
    yield App(path)
    assert SendFileProtocol._busy == 0


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """A connection to the server. It takes little in advance, as a client far away."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    stopping, started = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            web.serve_http(app, [listener], stopping, started, protocol=SendFileProtocol)
        )
        await started.wait()
        try:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            yield reader, writer
            writer.transport.abort()
        finally:
            stopping.set()


async def ask(writer: StreamWriter, first: int, count: int, method: str = "GET") -> None:
    writer.write(f"{method} /{first}/{count} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await writer.drain()


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.01)


def test_bytes_are_those_asked_for_and_the_connection_goes_on(run: Run, app: App) -> None:
    async def main() -> None:
        async with serving(app) as (reader, writer):
            for first, count in ((0, len(MANY)), (5, 1), (1 << 20, 3 << 20), (7, 0)):
                await ask(writer, first, count)
                head = await reader.readuntil(b"\r\n\r\n")
                assert f"content-length: {count}\r\n".encode() in head
                assert await reader.readexactly(count) == MANY[first : first + count]
        assert app.sent == [True] * 4

    run(main)


def test_a_question_about_a_file_sends_none_of_it(run: Run, app: App) -> None:
    async def main() -> None:
        async with serving(app) as (reader, writer):
            await ask(writer, 0, len(MANY), "HEAD")
            await reader.readuntil(b"\r\n\r\n")
            await ask(writer, 3, 4)
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(4) == MANY[3:7]

    run(main)


def test_a_client_that_leaves_frees_its_thread(run: Run, app: App) -> None:
    async def main() -> None:
        async with serving(app) as (reader, writer):
            await ask(writer, 0, len(MANY))
            await reader.readexactly(1 << 16)
            assert SendFileProtocol._busy == 1
            writer.transport.abort()
            await until(lambda: app.errors)
            assert isinstance(app.errors[0], ConnectionError)

    run(main)


def test_a_client_that_takes_nothing_is_left(
    run: Run, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sendfile, "_STALL_S", 0.1)

    async def main() -> None:
        async with serving(app) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await ask(writer, 0, len(MANY))
            await until(lambda: app.errors)
            assert "took nothing" in str(app.errors[0])

    run(main)


def test_a_file_that_is_too_short_ends_the_connection(run: Run, app: App) -> None:
    async def main() -> None:
        async with serving(app) as (reader, writer):
            await ask(writer, len(MANY) - 10, 20)
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.read() == MANY[-10:]
            assert "shorter" in str(app.errors[0])

    run(main)


def test_when_all_threads_are_busy_the_bytes_go_another_way(
    run: Run, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sendfile, "_AT_ONCE", 0)

    async def main() -> None:
        async with serving(app) as (reader, writer):
            await ask(writer, 1, 1000)
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(1000) == MANY[1:1001]
        assert app.sent == [False]

    run(main)
