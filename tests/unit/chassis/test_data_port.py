"""The data port: tickets and byte streams."""

import asyncio
import errno
import gc
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from labfleet_chassis import data_port, logs
from labfleet_chassis.clock import Clock, SystemClock
from labfleet_chassis.data_port import (
    Accept,
    ByteStream,
    DataPort,
    StreamHandler,
    dial,
    seal,
    unseal,
)
from labfleet_chassis.lent_socket import in_thread
from labfleet_proto.errors import ForbiddenError, NotFoundError, UnavailableError
from labfleet_proto.ids import OPERATORS, ContainerId, HostId
from labfleet_proto.streams import ReadArchive, Ticket

KEY = b"k" * 32
HOST = HostId("host1")
REQUEST = ReadArchive(container=ContainerId("c" * 64), path="/etc")


class SteppedClock(SystemClock):
    """A clock that a test can push forward."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns


async def echo(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
    await accept({"size": 7})
    while data := await stream.read():
        await stream.write(data)
    stream.write_eof()


async def refuse(_ticket: Ticket, _stream: ByteStream, _accept: Accept) -> None:
    raise NotFoundError("no such path: /etc")


@asynccontextmanager
async def serving(handler: StreamHandler = echo, clock: Clock | None = None) -> AsyncIterator[int]:
    port = DataPort(handler, host=HOST, key=KEY, clock=clock or SystemClock(), log=logs.get("test"))
    async with port.listening("127.0.0.1", 0) as number:
        yield number


@asynccontextmanager
async def strange_peer(answer: bytes) -> AsyncIterator[int]:
    """A peer that takes a connection, says so much, and waits for its end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def dialled(
    port: int, *, host: HostId = HOST, key: bytes = KEY, silence_s: float = 10.0
) -> AbstractAsyncContextManager[ByteStream]:
    return dial(
        "127.0.0.1",
        port,
        REQUEST,
        host=host,
        tenant=OPERATORS,
        key=key,
        clock=SystemClock(),
        silence_s=silence_s,
    )


async def test_bytes_come_back_exact_after_a_half_close() -> None:
    sent = hashlib.sha256(b"x").digest() * (1 << 18)  # 8 MiB
    async with serving() as port, dialled(port) as stream:
        assert stream.detail == {"size": 7}

        async def send() -> None:
            for start in range(0, len(sent), 100_000):
                await stream.write(sent[start : start + 100_000])
            stream.write_eof()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            got = bytearray()
            while data := await stream.read():
                got += data
    assert bytes(got) == sent


async def test_a_handlers_refusal_reaches_the_dialler() -> None:
    async with serving(refuse) as port:
        with pytest.raises(NotFoundError, match="no such path"):
            async with dialled(port):
                pass


async def test_a_ticket_for_another_host_is_refused() -> None:
    async with serving() as port:
        with pytest.raises(ForbiddenError, match="for host host2"):
            async with dialled(port, host=HostId("host2")):
                pass


async def test_a_ticket_signed_with_another_key_is_refused() -> None:
    async with serving() as port:
        with pytest.raises(ForbiddenError, match="signature"):
            async with dialled(port, key=b"z" * 32):
                pass


async def test_an_expired_ticket_is_refused() -> None:
    clock = SteppedClock()
    async with serving(clock=clock) as port:
        clock.ahead_ns = 31_000_000_000
        with pytest.raises(ForbiddenError, match="expired"):
            async with dialled(port):
                pass


async def test_a_ticket_serves_once() -> None:
    ticket = Ticket(
        host=HOST,
        tenant=OPERATORS,
        request=REQUEST,
        expires_at_ns=SystemClock().now_ns() + 10_000_000_000,
        nonce="n",
    )
    async with serving() as port:
        answers = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(seal(ticket, KEY) + b"\n")
            writer.write_eof()
            answers.append(await reader.readline())
            writer.close()
            await writer.wait_closed()
    assert b'"problem":null' in answers[0]
    assert b"used already" in answers[1]


async def test_both_ends_notice_a_silent_peer() -> None:
    """The kernel's own probes are on: a cut cable ends a stream that only listens."""
    kept: list[int] = []

    async def look(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        kept.append(_keeps_alive(stream))
        await accept({})
        stream.write_eof()

    async with serving(look) as port, dialled(port) as stream:
        kept.append(_keeps_alive(stream))
        assert await stream.read() == b""
    assert kept == [1, 1]


def _keeps_alive(stream: ByteStream) -> int:
    link = stream.writer.get_extra_info("socket")
    return link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_an_unreachable_host_is_unavailable() -> None:
    async with serving() as port:
        pass
    with pytest.raises(UnavailableError, match="host1"):
        async with dialled(port):
            pass


@pytest.mark.timeout(20)
@pytest.mark.parametrize("answer", [b"", b'{"problem"'])
async def test_a_host_that_says_nothing_is_unavailable_and_named(answer: bytes) -> None:
    async with strange_peer(answer) as port:
        with pytest.raises(
            UnavailableError, match=rf"host1 at 127\.0\.0\.1:{port}: no answer in 0\.2"
        ):
            async with dialled(port, silence_s=0.2):
                pass


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b"x" * (1 << 20)])
async def test_a_host_that_answers_nonsense_is_unavailable_and_named(answer: bytes) -> None:
    async with strange_peer(answer) as port:
        with pytest.raises(UnavailableError, match=r"host1 at 127\.0\.0\.1.*nonsense"):
            async with dialled(port):
                pass


async def test_a_host_that_prepares_for_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy out of a container that never ran begins with its image's fetch."""
    monkeypatch.setattr(data_port, "_ALIVE_EVERY_S", 0.02)
    go = asyncio.Event()

    async def prepare(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        await go.wait()
        await accept({"size": 1})
        await stream.write(b"x")
        stream.write_eof()

    async with serving(prepare) as port:
        asyncio.get_running_loop().call_later(1, go.set)
        async with dialled(port, silence_s=0.4) as stream:
            assert stream.detail == {"size": 1}
            assert await stream.read() == b"x"
            assert await stream.read() == b""


def test_a_changed_ticket_is_refused() -> None:
    ticket = Ticket(host=HOST, tenant=OPERATORS, request=REQUEST, expires_at_ns=1, nonce="n")
    line = seal(ticket, KEY)
    assert unseal(line, KEY) == ticket
    with pytest.raises(ForbiddenError):
        unseal(b"A" + line[1:], KEY)


async def test_a_stream_whose_client_has_half_closed_is_not_collected() -> None:
    """Its task waits for a pipe, as an exec does: nothing but the data port knows of it."""
    source, sink = os.pipe()
    waits = asyncio.Event()

    async def late(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        await accept({})
        while await stream.read():
            pass
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", buffering=0)
        )
        loop.call_soon(waits.set)
        await stream.write(await reader.read())
        transport.close()
        stream.write_eof()

    async with serving(late) as port, dialled(port) as stream:
        stream.write_eof()
        await waits.wait()
        gc.collect()
        os.write(sink, b"late")
        os.close(sink)
        assert await stream.read() == b"late"
        assert await stream.read() == b""


on_both_loops = pytest.mark.parametrize(
    "policy", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@on_both_loops
def test_what_is_written_to_a_connection_that_was_reset_is_a_connection_error(
    policy: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    raised: list[type[BaseException]] = []

    async def late(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        await accept({})
        while len(raised) < 3:
            try:
                await stream.write(b"x")
            except Exception as exc:  # noqa: BLE001 - which it is, is the question
                raised.append(type(exc))
            await asyncio.sleep(0.01)
        done.set()

    async def reset() -> None:
        async with serving(late) as port, dialled(port) as stream:
            stream.writer.transport.abort()
            await done.wait()

    done = asyncio.Event()
    with asyncio.Runner(loop_factory=policy) as runner:
        runner.run(reset())
    assert all(issubclass(kind, ConnectionError) for kind in raised), raised


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNRESET])
@pytest.mark.parametrize(
    "read", [ByteStream.read, ByteStream.read_line, lambda stream: stream.read_exactly(4)]
)
async def test_what_the_kernel_says_of_a_lost_peer_is_a_connection_error(
    read: Callable[[ByteStream], Awaitable[bytes]], number: int
) -> None:
    async with strange_peer(b"") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stream = ByteStream(reader, writer)
        reader.set_exception(OSError(number, os.strerror(number)))
        with pytest.raises(ConnectionError):
            await read(stream)
        await stream.close()


@on_both_loops
def test_lent_sockets_lose_nothing_of_what_the_loop_has_read(
    policy: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    sent = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(sent)

    async def give(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        await accept({})
        await stream.write(sent[:1_000_000])  # more than the reader's buffer
        async with stream.lend() as link:
            with (tmp_path / "file").open("rb") as file:

                def send() -> None:
                    link.send(sent[1_000_000:1_000_010], 5, is_head=True)
                    link.send_file(file.fileno(), 1_000_010, 1_999_990, 5)

                await in_thread(send, link.shut)
        stream.write_eof()

    async def take() -> bytes:
        got = bytearray()
        part = memoryview(bytearray(1 << 16))
        async with serving(give) as port, dialled(port) as stream:
            got += await stream.read(10)
            async with stream.lend() as link:
                while count := await in_thread(lambda: link.receive_into(part, 5), link.shut):
                    got += part[:count]
        return bytes(got)

    with asyncio.Runner(loop_factory=policy) as runner:
        assert runner.run(take()) == sent


async def test_a_cancellation_ends_a_thread_that_waits_for_a_lent_socket() -> None:
    async with serving() as port, dialled(port) as stream, stream.lend() as link:
        part = memoryview(bytearray(10))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await in_thread(lambda: link.receive_into(part, 30), link.shut)
