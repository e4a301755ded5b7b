"""A container's log as a stream of blocks, each of which is whole or not there."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from labfleet_chassis.data_port import ByteStream
from labfleet_proto.runtime import LogBlock, ReadLogs
from labfleet_runtime_agent.adapters.log_files import LogReader
from labfleet_runtime_agent.core.log_output import LogOutput
from labfleet_runtime_agent.service.worker import Worker

_POLL_S = 0.05

Now = Callable[[], int]


async def send(worker: Worker, request: ReadLogs, stream: ByteStream, now_ns: Now) -> None:
    """Send a log in blocks. Raises ConnectionError when the client is gone."""
    async with contextlib.aclosing(_blocks(worker, request, now_ns, is_framed=True)) as blocks:
        async for head, data in blocks:
            await stream.write(head.model_dump_json().encode() + b"\n" + data)


async def replay(worker: Worker, request: ReadLogs, stream: ByteStream, *, is_framed: bool) -> None:
    """Send what was logged until now as it stands. Raises ConnectionError."""
    async with contextlib.aclosing(
        _blocks(worker, request, lambda: 0, is_framed=is_framed)
    ) as blocks:
        async for _, data in blocks:
            if data:
                await stream.write(data)


async def _blocks(
    worker: Worker, request: ReadLogs, now_ns: Now, *, is_framed: bool
) -> AsyncGenerator[tuple[LogBlock, bytes], None]:
    """Yield what is logged; with `follow` until the container ends and all is read."""
    is_tty = worker.record.spec.is_tty
    output = LogOutput(request, is_framed=is_framed and not is_tty)
    reader = LogReader(worker.log_file, request, output)
    try:
        while True:
            is_over = not request.follow or worker.is_over
            if request.until_ns and now_ns() > request.until_ns:
                is_over = True
            data, has_read = await asyncio.to_thread(reader.read)
            if data:
                yield LogBlock(size_bytes=len(data), position=reader.position), data
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
