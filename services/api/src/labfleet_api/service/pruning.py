"""`docker container prune`: the tenant's containers that do not run, at once."""

import asyncio

from fastapi import APIRouter, Request, Response

from labfleet_api.core import filters
from labfleet_api.core.prunes import is_pruned, parse_prune_filters
from labfleet_api.core.status import state_of
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer
from labfleet_api.service.life import Life
from labfleet_api.service.sizes import sizes_of
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import LabfleetError
from labfleet_proto.ids import ContainerId

_AT_ONCE = 8


async def prune(fleet: Fleet, life: Life, found: list[ContainerRecord]) -> list[ContainerId]:
    """Remove containers, some at a time; return the ids of those that went.

    One that was started meanwhile, or whose host does not answer, stays.
    """
    slots = asyncio.Semaphore(_AT_ONCE)
    gone: list[ContainerId] = []

    async def remove(record: ContainerRecord) -> None:
        async with slots:
            try:
                await life.remove(record, force=False, with_volumes=False)
            except LabfleetError as exc:
                fleet.chassis.log.info("prune.kept", container=record.id, error=exc.message)
            else:
                gone.append(record.id)

    async with TaskGroup() as tasks:
        for record in found:
            tasks.create_task(remove(record))
    return gone


def prunable(fleet: Fleet, wanted: filters.Filters) -> list[ContainerRecord]:
    """The tenant's containers that were created or have exited, and pass the filters."""
    now_ns = fleet.clock.now_ns()
    return [
        record
        for record in fleet.records()
        if is_pruned(wanted, record.spec.labels, record.created_at_ns, now_ns)
        and state_of(record, fleet.seen(record)) in ("created", "exited")
    ]


def router(fleet: Fleet, life: Life) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/containers/prune")
    async def prune_containers(request: Request) -> Response:
        wanted = parse_prune_filters(request.query_params.get("filters", ""))
        found = prunable(fleet, wanted)
        sizes = {
            each.id: size["SizeRw"]
            for each, size in zip(found, await sizes_of(fleet, found), strict=True)
        }
        gone = await prune(fleet, life, found)
        reclaimed = sum(max(sizes[container], 0) for container in gone)
        await fleet.emit("container", "prune", "", {"reclaimed": str(reclaimed)})
        return answer({"ContainersDeleted": gone or None, "SpaceReclaimed": reclaimed})

    return routes
