"""Logs of a container, followed across restarts of its host's agent.

The host sends blocks that are whole or not there, each with the position behind it. When the stream is cut,
it is opened again at the last position: the client sees no line twice and misses none.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi import Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from labfleet_api.service.fleet import Fleet
from labfleet_chassis.data_port import ByteStream
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import LabfleetError, TransientError
from labfleet_proto.streams import LogBlock, ReadLogs

_RETRY_S = 0.25
_GIVE_UP_S = 120.0
_LONGEST_BLOCK = 64 << 20


async def followed(
    fleet: Fleet, record: ContainerRecord, wish: ReadLogs, media_type: str
) -> Response:
    """Answer with a log; errors before its first byte become the answer."""
    stack = AsyncExitStack()
    host = await stack.enter_async_context(fleet.stream(record, wish))
    log = _Log(fleet, record, wish)

    async def body() -> AsyncIterator[bytes]:
        async with stack:
            async for data in log.read(host):
                yield data
        async for data in log.read_on():
            yield data

    return StreamingResponse(body(), headers={"Content-Type": media_type})


class _Log:
    """One client's way through a log."""

    def __init__(self, fleet: Fleet, record: ContainerRecord, wish: ReadLogs) -> None:
        self._fleet = fleet
        self._record = record
        self._wish = wish
        self._is_over = False
        self._heard_s = fleet.clock.monotonic_s()

    async def read(self, host: ByteStream) -> AsyncIterator[bytes]:
        """Yield what one stream brings, until its end or until it is cut."""
        async for block, data in _blocks(host):
            self._heard_s = self._fleet.clock.monotonic_s()
            self._wish = self._wish.model_copy(update={"position": block.position})
            self._is_over = block.is_end
            if data:
                yield data

    async def read_on(self) -> AsyncIterator[bytes]:
        """After a cut, yield what further streams bring; a host that stays away ends it."""
        while not self._is_over:
            if self._fleet.clock.monotonic_s() - self._heard_s > _GIVE_UP_S:
                return
            await asyncio.sleep(_RETRY_S)
            try:
                async with self._fleet.stream(self._record, self._wish) as host:
                    async for data in self.read(host):
                        yield data
            except TransientError:
                continue  # the host is on its way back
            except LabfleetError:
                return  # the container is gone


async def _blocks(host: ByteStream) -> AsyncIterator[tuple[LogBlock, bytes]]:
    """Yield the blocks of one stream; a cut one ends early."""
    try:
        while line := await host.read_line():
            block = LogBlock.model_validate_json(line)
            if block.size_bytes > _LONGEST_BLOCK:
                return
            yield block, await host.read_exactly(block.size_bytes)
    except (ConnectionError, ValidationError):
        return
