"""Sizes of containers, asked of their hosts only when a client wants them."""

import asyncio
from collections.abc import Iterable
from typing import Any

from labfleet_api.service.fleet import Fleet
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import LabfleetError
from labfleet_proto.runtime import SIZES, ContainerRef

Json = dict[str, Any]

_AT_ONCE = 16
_LIMIT_S = 20.0
_UNKNOWN = {"SizeRw": -1, "SizeRootFs": -1}
"""What docker shows where it could not measure."""


async def size_of(fleet: Fleet, record: ContainerRecord) -> Json:
    """`SizeRw` and `SizeRootFs` of a container; -1 where its host does not tell in time."""
    try:
        found = await fleet.ask(SIZES, ContainerRef(container=record.id), record, _LIMIT_S)
    except LabfleetError:
        return _UNKNOWN
    return {"SizeRw": found.writable_bytes, "SizeRootFs": found.total_bytes}


async def sizes_of(fleet: Fleet, records: Iterable[ContainerRecord]) -> list[Json]:
    """Sizes of several containers, in their order, 16 asked at once."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def measured(record: ContainerRecord) -> Json:
        async with slots:
            return await size_of(fleet, record)

    async with TaskGroup() as group:
        tasks = [group.create_task(measured(record)) for record in records]
    return [task.result() for task in tasks]
