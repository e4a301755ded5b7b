"""A container's log as a stream of blocks, each of which is whole or not there."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from labfleet_chassis.data_port import ByteStream
from labfleet_proto.streams import LogBlock, ReadLogs
from labfleet_runtime_agent.adapters.log_files import LogReader
from labfleet_runtime_agent.core.log_output import LogOutput
from labfleet_runtime_agent.service.worker import Worker

_POLL_S = 0.05
_FIRST_WORD_NS = 200_000_000
"""What asks for the log right after the start expects what a short command says: while nothing was
said, a log is not read to its end before the container is so old."""

Now = Callable[[], int]


async def send(worker: Worker, request: ReadLogs, stream: ByteStream, now_ns: Now) -> None:
    """Send a log in blocks, until the client is gone. Raises ConnectionError."""
    follower = _blocks(worker, request, now_ns, is_framed=True, is_gone=stream.at_end)
    async with contextlib.aclosing(follower) as blocks:
        async for head, data in blocks:
            await stream.write(head.model_dump_json().encode() + b"\n" + data)


async def replay(
    worker: Worker, request: ReadLogs, write: Callable[[bytes], Awaitable[None]], *, is_framed: bool
) -> None:
    """Send what was logged until now as it stands. Raises ConnectionError."""
    async with contextlib.aclosing(
        _blocks(worker, request, lambda: 1 << 62, is_framed=is_framed)
    ) as blocks:
        async for _, data in blocks:
            if data:
                await write(data)


async def _blocks(
    worker: Worker,
    request: ReadLogs,
    now_ns: Now,
    *,
    is_framed: bool,
    is_gone: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[tuple[LogBlock, bytes], None]:
    """Yield what is logged; with `follow` until the container ends and all is read."""
    is_tty = worker.record.spec.is_tty
    output = LogOutput(request, is_framed=is_framed and not is_tty)
    reader = LogReader(worker.log_file, request, output)
    try:
        while not is_gone():
            is_over = worker.is_over or not (request.follow or _is_young(worker, now_ns()))
            if request.until_ns and now_ns() > request.until_ns:
                is_over = True
            data, has_read = await asyncio.to_thread(reader.read)
            if data:
                yield LogBlock(size_bytes=len(data), position=reader.position), data
                is_over = is_over or not request.follow
            if has_read:
                continue
            if is_over:
                rest = output.rest()
                if rest:
                    yield LogBlock(size_bytes=len(rest), position=reader.position), rest
                yield LogBlock(size_bytes=0, position=reader.position, is_end=True), b""
                return
            await asyncio.sleep(_POLL_S)
    finally:
        reader.close()


def _is_young(worker: Worker, now_ns: int) -> bool:
    """Whether a container runs that began a moment ago."""
    seen = worker.seen
    return worker.is_running and seen is not None and now_ns - seen.started_at_ns < _FIRST_WORD_NS
