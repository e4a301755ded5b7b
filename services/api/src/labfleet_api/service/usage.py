"""`docker system df`."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from labfleet_api.core import image_views, views
from labfleet_api.core.times import ZERO, rfc3339
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer
from labfleet_api.service.shelf import Shelf
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.builds import BUILD_CACHE, BuildCache, PruneBuilds
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import InvalidRequestError, LabfleetError
from labfleet_proto.hosts import HostRecord
from labfleet_proto.runtime import SIZES, ContainerRef, ContainerSizes

_KINDS = ("container", "image", "volume", "build-cache")
_AT_ONCE = 16


def router(fleet: Fleet) -> APIRouter:
    """The route of usage."""
    routes = APIRouter()

    @routes.get("/system/df")
    async def usage(request: Request) -> Response:
        kinds = request.query_params.getlist("type") or list(_KINDS)
        for kind in kinds:
            if kind not in _KINDS:
                raise InvalidRequestError(f"unknown object type: {kind}")
        found: dict[str, Any] = {}
        if "image" in kinds:
            found |= await _images(fleet)
        if "container" in kinds:
            found["Containers"] = await _containers(fleet)
        if "volume" in kinds:
            found["Volumes"] = _volumes(fleet)
        if "build-cache" in kinds:
            found["BuildCache"] = await _caches(fleet)
        return answer({"LayersSize": 0, "BuilderSize": 0, **found})

    return routes


async def _images(fleet: Fleet) -> dict[str, Any]:
    every = await Shelf(fleet).every()
    used = [record.image.image_id for record in fleet.records()]
    rows = [
        image_views.row(image, used.count(image.image_id), with_shared=True)
        for image in every.images
    ]
    return {"Images": rows, "LayersSize": every.layers_bytes}


async def _containers(fleet: Fleet) -> list[dict[str, Any]]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def row(record: ContainerRecord) -> dict[str, Any]:
        sizes = ContainerSizes(writable_bytes=0, total_bytes=0)
        async with slots:
            try:
                sizes = await fleet.ask(SIZES, ContainerRef(container=record.id), record)
            except LabfleetError as exc:  # its host is lost: it is shown all the same
                fleet.chassis.log.info("size.unknown", container=record.id, why=exc.message)
        shown = views.row(
            record,
            fleet.seen(record),
            fleet.clock.now_ns(),
            is_host_lost=fleet.is_lost(record.assignment.host),
        )
        return {**shown, "SizeRw": sizes.writable_bytes, "SizeRootFs": sizes.total_bytes}

    async with TaskGroup() as tasks:
        rows = [tasks.create_task(row(record)) for record in fleet.records()]
    return [each.result() for each in rows]


def _volumes(fleet: Fleet) -> list[dict[str, Any]]:
    """Sizes of volumes are not measured: -1, as docker says it."""
    users = [mount.volume for record in fleet.records() for mount in record.spec.mounts]
    return [
        {
            "Name": record.name,
            "Driver": "local",
            "Mountpoint": "",
            "Labels": record.labels or None,
            "Scope": "local",
            "Options": None,
            "CreatedAt": rfc3339(record.created_at_ns),
            "UsageData": {"Size": -1, "RefCount": users.count(record.name)},
        }
        for record in fleet.memory.volumes.values()
        if record.tenant == fleet.tenant
    ]


async def _caches(fleet: Fleet) -> list[dict[str, Any]]:
    """One row a host that keeps something of the tenant's builds."""

    async def cache(host: HostRecord) -> tuple[HostRecord, BuildCache | None]:
        try:
            return host, await fleet.bus.call(
                BUILD_CACHE, PruneBuilds(), tenant=fleet.tenant, subject="builds", host=host.id
            )
        except LabfleetError as exc:
            fleet.chassis.log.info("cache.unknown", host=host.id, why=exc.message)
            return host, None

    alive = [host for host in fleet.memory.hosts.values() if not fleet.is_lost(host.id)]
    async with TaskGroup() as tasks:
        asked = [tasks.create_task(cache(host)) for host in alive]
    return [
        {
            "ID": host.id,
            "Type": "regular",
            "Description": f"layers of builds on {host.id}",
            "InUse": found.is_in_use,
            "Shared": False,
            "Size": found.size_bytes,
            "CreatedAt": ZERO,
            "LastUsedAt": None,
            "UsageCount": 0,
        }
        for host, found in (each.result() for each in asked)
        if found is not None and found.size_bytes
    ]
