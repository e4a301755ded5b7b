"""Limits of requests over a real uvicorn: heads that are too slow or too large, bodies that are too long."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import AF_UNIX, socket

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from labfleet_api.adapters import limits
from labfleet_api.adapters.limits import BoundedProtocol
from labfleet_api.core.problems import BodyTooLargeError, BodyTooSlowError, status_of
from labfleet_api.service import bounds
from labfleet_api.service.bounds import Bounded
from labfleet_api.service.http import MOST_BODY, problem
from labfleet_chassis import web

LIMIT_S = 10


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator["Connect"]:
    async def count(request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except (BodyTooLargeError, BodyTooSlowError) as exc:
            return problem(status_of(exc), exc.message)

    app = Bounded(Starlette(routes=[Route("/{rest:path}", count, methods=["GET", "POST", "PUT"])]))
    path = tmp_path / "s"
    listener = socket(AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    stopping, started = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(
            web.serve_http(app, [listener], stopping, started, protocol=BoundedProtocol)
        )
        await started.wait()
        yield Connect(path)
        stopping.set()


class Connect:
    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def test_a_body_whose_length_is_too_large_is_refused_before_it_is_read(
    client: Connect,
) -> None:
    async with client() as (reader, writer):
        writer.write(b"POST /containers/create HTTP/1.1\r\nHost: x\r\n"
                     b"Content-Length: %d\r\n\r\n" % (MOST_BODY + 1))  # fmt: skip
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413")
        assert b"larger than" in await reader.readuntil(b"\n")


async def test_a_client_that_sends_it_all_the_same_hears_the_answer(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "_LINGER_S", 5.0)
    size = MOST_BODY + (1 << 20)
    async with client() as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")


async def test_a_body_in_chunks_is_counted(client: Connect) -> None:
    async with client() as (reader, writer):
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
        for _ in range(5):
            writer.write(piece)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")


async def test_uploads_may_be_large(client: Connect) -> None:
    async with client() as (reader, writer):
        size = MOST_BODY + 10
        writer.write(b"PUT /containers/a/archive HTTP/1.1\r\nHost: x\r\n"
                     b"Content-Length: %d\r\n\r\n" % size + bytes(size))  # fmt: skip
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("path", "limit"), [(b"/x", "_SMALL"), (b"/build", "_IDLE")])
async def test_a_body_that_does_not_come_is_not_awaited(
    client: Connect, monkeypatch: pytest.MonkeyPatch, path: bytes, limit: str
) -> None:
    monkeypatch.setattr(bounds, f"{limit}_LIMIT_S", 0.2)
    async with client() as (reader, writer):
        writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc" % path)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("said", [b"", b"GET /x HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_head_that_does_not_come_ends_the_connection(
    client: Connect, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(limits, "_HEAD_LIMIT_S", 0.2)
    async with client() as (reader, writer):
        writer.write(said)
        assert await reader.read() == b""


async def test_a_head_that_is_too_large_is_refused(client: Connect) -> None:
    async with client() as (reader, writer):
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\nX-Large: ")
        for _ in range(20):
            writer.write(b"a" * 8192)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 431")


async def test_requests_one_after_the_other_are_answered(client: Connect) -> None:
    async with client() as (reader, writer):
        for _ in range(3):
            writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readexactly(1)
