"""Routes of volumes."""

import asyncio
import secrets
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request, Response

from labfleet_api.core import filters, prunes
from labfleet_api.core.names import checked_volume_name
from labfleet_api.core.older_clients import prunes_named_volumes
from labfleet_api.core.place_bodies import VolumeBody
from labfleet_api.core.times import rfc3339
from labfleet_api.core.views import mountpoint
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, flag, read_body, version_of
from labfleet_chassis.caller import caller_is_admin
from labfleet_chassis.store import ExistsError
from labfleet_proto.buckets import name_key
from labfleet_proto.containers import Goal, VolumeRecord
from labfleet_proto.errors import (
    ConflictError,
    InvalidRequestError,
    NoRoomError,
    NotFoundError,
    UnavailableError,
)
from labfleet_proto.host_policies import is_open
from labfleet_proto.ids import HostId
from labfleet_proto.runtime import MEASURE_VOLUMES, REMOVE_VOLUME, VolumeRef, VolumeRefs
from labfleet_proto.volume_options import volume_kind

_FILTERS = frozenset({"name", "label", "driver", "dangling"})
_ANONYMOUS = "com.docker.volume.anonymous"
"""Label that docker gives to volumes without a name of their own."""


class Volumes:
    """The tenant's volumes."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def own(self) -> list[VolumeRecord]:
        """By name."""
        tenant = self._fleet.tenant
        found = [each for each in self._fleet.memory.volumes.values() if each.tenant == tenant]
        return sorted(found, key=lambda each: each.name)

    def find(self, name: str) -> VolumeRecord:
        """Find by name. Raises NotFoundError."""
        record = self._fleet.memory.volumes.get(name_key(self._fleet.tenant, name))
        if record is None:
            raise NotFoundError(f"get {name}: no such volume")
        return record

    def users(self, name: str) -> list[str]:
        """Containers that have it, running or not."""
        return [
            record.id
            for record in self._fleet.records()
            if record.goal is not Goal.REMOVED
            and any(mount.volume == name for mount in record.spec.mounts)
        ]

    async def create(self, body: VolumeBody) -> VolumeRecord:
        """Make a volume; one that is there is returned as it is.

        Raises InvalidRequestError, ForbiddenError, NotFoundError (driver), NoRoomError.
        """
        fleet = self._fleet
        body.refuse_unserved()
        name = checked_volume_name(body.Name) if body.Name else secrets.token_hex(32)
        if body.Driver not in ("", "local"):
            raise NotFoundError(
                f"create {name}: error looking up volume plugin {body.Driver}: "
                f'plugin "{body.Driver}" not found'
            )
        options = body.DriverOpts or {}
        volume_kind(options, is_operator=caller_is_admin())
        key = name_key(fleet.tenant, name)
        known = fleet.memory.volumes.get(key)
        if known is not None:
            return known
        labels = dict(body.Labels or {})
        if not body.Name:
            labels[_ANONYMOUS] = ""
        record = VolumeRecord(
            tenant=fleet.tenant,
            name=name,
            home=_home(fleet),
            created_at_ns=fleet.clock.now_ns(),
            labels=labels,
            is_anonymous=not body.Name,
            driver_opts=options,
        )
        bucket = fleet.memory.volumes.bucket
        try:
            revision = await bucket.create(key, record)
        except ExistsError:
            entry = await bucket.get(key)
            return entry.value if entry else record
        await fleet.memory.volumes.wait_for(revision)
        await fleet.emit("volume", "create", name, {"driver": "local"})
        return record

    async def remove(self, record: VolumeRecord) -> None:
        """Delete its files and forget it. Raises ConflictError while a container has it."""
        fleet, name = self._fleet, record.name
        used = self.users(name)
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
        key = name_key(record.tenant, name)
        await fleet.memory.volumes.bucket.delete(key)
        while key in fleet.memory.volumes.entries:
            await fleet.memory.volumes.changed()
        await fleet.emit("volume", "destroy", name, {"driver": "local"})

    async def sizes(self, records: Iterable[VolumeRecord]) -> dict[str, int]:
        """Bytes on disk by name; volumes of hosts that do not answer are left out."""
        by_home: dict[HostId, list[str]] = {}
        for record in records:
            by_home.setdefault(record.home, []).append(record.name)
        answers = await asyncio.gather(
            *(self._sizes_on(home, names) for home, names in by_home.items())
        )
        return {name: size for sizes in answers for name, size in sizes.items()}

    async def _sizes_on(self, home: HostId, names: list[str]) -> dict[str, int]:
        fleet = self._fleet
        try:
            fleet.host(home)
            found = await fleet.bus.call(
                MEASURE_VOLUMES,
                VolumeRefs(tenant=fleet.tenant, names=tuple(names)),
                tenant=fleet.tenant,
                subject=home,
                host=home,
            )
        except UnavailableError:
            return {}
        return found.sizes_bytes

    async def prune(self, wanted: filters.Filters, *, takes_named: bool) -> dict[str, Any]:
        """Remove what no container has: anonymous ones, or all. Raises InvalidRequestError."""
        asks_all = takes_named or wanted.get("all", ("false",))[0].lower() in ("1", "true")
        now_ns = self._fleet.clock.now_ns()
        due = [
            record
            for record in self.own()
            if (asks_all or record.is_anonymous)
            and not self.users(record.name)
            and prunes.is_pruned(wanted, record.labels, record.created_at_ns, now_ns)
        ]
        sizes = await self.sizes(due)
        deleted, reclaimed = [], 0
        for record in due:
            if record.name in sizes:  # the others' hosts do not answer
                await self.remove(record)
                deleted.append(record.name)
                reclaimed += sizes[record.name]
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}


def router(fleet: Fleet) -> APIRouter:
    """Routes below `/volumes`."""
    routes = APIRouter()
    volumes = Volumes(fleet)

    @routes.get("/volumes")
    async def every(request: Request) -> Response:
        wanted = filters.parse_filters(request.query_params.get("filters", ""), _FILTERS)
        found = [each for each in volumes.own() if _matches(each, wanted, volumes.users(each.name))]
        return answer({"Volumes": [_view(each) for each in found], "Warnings": None})

    @routes.post("/volumes/create")
    async def create(request: Request) -> Response:
        return answer(_view(await volumes.create(await read_body(request, VolumeBody))), 201)

    @routes.post("/volumes/prune")
    async def prune(request: Request) -> Response:
        text = request.query_params.get("filters", "")
        wanted = prunes.parse_prune_filters(text, "all")
        takes_named = prunes_named_volumes(version_of(request))
        return answer(await volumes.prune(wanted, takes_named=takes_named))

    @routes.get("/volumes/{name}")
    async def inspect(name: str) -> Response:
        return answer(_view(volumes.find(name)))

    @routes.delete("/volumes/{name}")
    async def remove(name: str, request: Request) -> Response:
        key = name_key(fleet.tenant, name)
        if fleet.memory.volumes.get(key) is None and flag(request, "force"):
            return Response(status_code=204)
        await volumes.remove(volumes.find(name))
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
        "Mountpoint": mountpoint(record.name),
        "CreatedAt": rfc3339(record.created_at_ns),
        "Labels": record.labels,
        "Scope": "local",
        "Options": record.driver_opts or None,
        "Status": {"host": record.home},
    }


def _matches(record: VolumeRecord, wanted: filters.Filters, users: list[str]) -> bool:
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
