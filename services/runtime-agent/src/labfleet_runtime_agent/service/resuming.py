"""Attached again after the stream was cut: output goes on out of the container's log."""

import asyncio
from collections.abc import Awaitable, Callable

from labfleet_chassis.output_blocks import Kind, block
from labfleet_proto.streams import AttachContainer, LogPosition, ReadLogs
from labfleet_runtime_agent.adapters.log_files import LogReader
from labfleet_runtime_agent.core.frames import STDERR, STDOUT
from labfleet_runtime_agent.core.raw_output import RawOutput
from labfleet_runtime_agent.service.worker import Worker

_POLL_S = 0.02


async def follow(
    worker: Worker,
    request: AttachContainer,
    position: LogPosition,
    write: Callable[[bytes], Awaitable[None]],
) -> None:
    """Write blocks of output from a position on, until this run has ended and all is read."""
    skipped = {STDOUT: request.skip_stdout, STDERR: request.skip_stderr}
    wanted = {STDOUT: request.with_stdout, STDERR: request.with_stderr}
    output = RawOutput(skipped, wanted, lambda kind, data: block(Kind(kind), data))
    reader = LogReader(
        worker.log_file, ReadLogs(container=request.container, position=position), output
    )
    run = worker.seen.run if worker.seen is not None else 0
    told = position
    try:
        while True:
            is_over = not (worker.is_running and worker.seen is not None and worker.seen.run == run)
            data, has_read = await asyncio.to_thread(reader.read)
            if data:
                await write(data)
            if has_read:
                continue
            if is_over:
                return
            if output.is_even and output.has_skipped and reader.position != told:
                told = reader.position
                await write(block(Kind.POSITION, told.model_dump_json().encode()))
            await asyncio.sleep(_POLL_S)
    finally:
        reader.close()
