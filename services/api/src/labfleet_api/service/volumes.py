"""Routes of volumes."""

import secrets
from typing import Any

from fastapi import APIRouter, Request, Response

from labfleet_api.core import filters
from labfleet_api.core.names import checked_volume_name
from labfleet_api.core.place_bodies import VolumeBody
from labfleet_api.core.times import rfc3339
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, flag, read_body
from labfleet_chassis.store import ExistsError
from labfleet_proto.buckets import name_key
from labfleet_proto.containers import Goal, VolumeRecord
from labfleet_proto.errors import (
    ConflictError,
    InvalidRequestError,
    NoRoomError,
    NotFoundError,
    NotImplementedYetError,
)
from labfleet_proto.host_policies import is_open
from labfleet_proto.ids import HostId
from labfleet_proto.runtime import REMOVE_VOLUME, VolumeRef

_VOLUME_FILTERS = frozenset({"name", "label", "driver", "dangling"})


def router(fleet: Fleet) -> APIRouter:  # noqa: C901 - a table of routes
    """Routes below `/volumes`."""
    routes = APIRouter()

    def own() -> list[VolumeRecord]:
        found = [each for each in fleet.memory.volumes.values() if each.tenant == fleet.tenant]
        return sorted(found, key=lambda each: each.name)

    def find(name: str) -> VolumeRecord:
        record = fleet.memory.volumes.get(name_key(fleet.tenant, name))
        if record is None:
            raise NotFoundError(f"get {name}: no such volume")
        return record

    def users(name: str) -> list[str]:
        return [
            record.id
            for record in fleet.records()
            if record.goal is not Goal.REMOVED
            and any(mount.volume == name for mount in record.spec.mounts)
        ]

    @routes.get("/volumes")
    async def every(request: Request) -> Response:
        wanted = filters.parse_filters(request.query_params.get("filters", ""), _VOLUME_FILTERS)
        found = [each for each in own() if _volume_matches(each, wanted, users(each.name))]
        return answer({"Volumes": [_view(each) for each in found], "Warnings": None})

    @routes.post("/volumes/create")
    async def create(request: Request) -> Response:
        body = await read_body(request, VolumeBody)
        body.refuse_unserved()
        if body.Driver not in ("", "local") or body.DriverOpts:
            raise NotImplementedYetError("labfleet: volume drivers and options are not there yet")
        name = checked_volume_name(body.Name) if body.Name else secrets.token_hex(32)
        known = fleet.memory.volumes.get(name_key(fleet.tenant, name))
        if known is not None:
            return answer(_view(known), 201)
        record = VolumeRecord(
            tenant=fleet.tenant,
            name=name,
            home=_home(fleet),
            created_at_ns=fleet.clock.now_ns(),
            labels=body.Labels or {},
            is_anonymous=not body.Name,
        )
        bucket = fleet.memory.volumes.bucket
        try:
            revision = await bucket.create(name_key(fleet.tenant, name), record)
        except ExistsError:
            entry = await bucket.get(name_key(fleet.tenant, name))
            return answer(_view(entry.value if entry else record), 201)
        await fleet.memory.volumes.wait_for(revision)
        return answer(_view(record), 201)

    @routes.get("/volumes/{name}")
    async def inspect(name: str) -> Response:
        return answer(_view(find(name)))

    @routes.delete("/volumes/{name}")
    async def remove(name: str, request: Request) -> Response:
        key = name_key(fleet.tenant, name)
        if fleet.memory.volumes.get(key) is None and flag(request, "force"):
            return Response(status_code=204)
        record = find(name)
        used = users(name)
        if used:
            raise ConflictError(f"remove {name}: volume is in use - [{', '.join(used)}]")
        fleet.host(record.home)  # at once when it is lost
        await fleet.bus.call(
            REMOVE_VOLUME,
            VolumeRef(tenant=record.tenant, name=name),
            tenant=record.tenant,
            subject=name,
            host=record.home,
        )
        await fleet.memory.volumes.bucket.delete(key)
        while key in fleet.memory.volumes.entries:
            await fleet.memory.volumes.changed()
        return Response(status_code=204)

    return routes


def _home(fleet: Fleet) -> HostId:
    """The living host with the most free memory."""
    alive = [
        host
        for host in fleet.memory.hosts.values()
        if is_open(host, fleet.memory.policies.get(host.id)) and not fleet.is_lost(host.id)
    ]
    if not alive:
        raise NoRoomError("no host is there to hold the volume")
    return max(alive, key=lambda host: (host.free.memory_bytes, host.id)).id


def _view(record: VolumeRecord) -> dict[str, Any]:
    return {
        "Name": record.name,
        "Driver": "local",
        "Mountpoint": "",
        "CreatedAt": rfc3339(record.created_at_ns),
        "Labels": record.labels,
        "Scope": "local",
        "Options": None,
        "Status": {"host": record.home},
    }


def _volume_matches(record: VolumeRecord, wanted: filters.Filters, users: list[str]) -> bool:
    for name, values in wanted.items():
        if name == "dangling" and values[0].lower() not in ("1", "true", "0", "false"):
            raise InvalidRequestError(f"invalid filter 'dangling={values[0]}'")
        good = {
            "name": any(value in record.name for value in values),
            "label": filters.labels_match(values, record.labels),
            "driver": "local" in values,
            "dangling": (not users) is (values[0].lower() in ("1", "true")),
        }
        if not good[name]:
            return False
    return True
