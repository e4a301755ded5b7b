"""Routes of networks."""

from fastapi import APIRouter, Request, Response

from labfleet_api.core import filters, prunes
from labfleet_api.core.network_documents import WITHOUT, Json, matches, predefined_document
from labfleet_api.core.place_bodies import ConnectBody, DisconnectBody, NetworkBody
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, read_body
from labfleet_api.service.joins import Joins
from labfleet_api.service.networks import Networks
from labfleet_proto.errors import ForbiddenError, NotFoundError
from labfleet_proto.networks import DEFAULT_NETWORK, NetworkRecord

_FILTERS = frozenset({"id", "name", "label", "driver", "type", "scope", "dangling"})


def router(fleet: Fleet, networks: Networks) -> APIRouter:  # noqa: C901, PLR0915 - a table of routes
    """Routes below `/networks`."""
    routes = APIRouter()
    joins = Joins(fleet, networks)

    def without(text: str) -> Json | None:
        """The predefined network without anything behind it that `text` means."""
        for name in WITHOUT:
            row = predefined_document(fleet.tenant, name)
            if text == name or (len(text) >= 12 and row["Id"].startswith(text)):
                return row
        return None

    async def require(text: str) -> NetworkRecord:
        return await networks.default() if text == DEFAULT_NETWORK else networks.require(text)

    @routes.get("/networks")
    @routes.get("/networks/", include_in_schema=False)
    async def every(request: Request) -> Response:
        wanted = filters.parse_filters(request.query_params.get("filters", ""), _FILTERS)
        await networks.default()
        rows = [
            (networks.view(record, with_members=False), bool(networks.members(record)))
            for record in fleet.networks()
        ]
        rows += [(predefined_document(fleet.tenant, name), False) for name in WITHOUT]
        return answer([row for row, is_used in rows if matches(row, wanted, is_used=is_used)])

    @routes.post("/networks/create")
    async def create(request: Request) -> Response:
        record = await networks.create(await read_body(request, NetworkBody))
        return answer({"Id": record.id, "Warning": ""}, 201)

    @routes.get("/networks/{text}")
    async def inspect(text: str, request: Request) -> Response:
        if request.query_params.get("scope", "") not in ("", "local"):
            raise NotFoundError(f"network {text} not found")
        row = without(text)
        return answer(row or networks.view(await require(text), with_members=True))

    @routes.delete("/networks/{text}")
    async def remove(text: str) -> Response:
        row = without(text)
        if row is not None:
            raise ForbiddenError(f"{row['Name']} is a pre-defined network and cannot be removed")
        await networks.remove(await require(text))
        return Response(status_code=204)

    @routes.post("/networks/{text}/connect")
    async def connect(text: str, request: Request) -> Response:
        body = await read_body(request, ConnectBody)
        row = without(text)
        if row is not None:
            raise ForbiddenError(
                f"container cannot be connected to {row['Name']} network"
                if row["Name"] == "none"
                else "container cannot be connected to host network: namespaces are never shared"
            )
        await joins.connect(await require(text), body)
        return Response(status_code=200)

    @routes.post("/networks/{text}/disconnect")
    async def disconnect(text: str, request: Request) -> Response:
        body = await read_body(request, DisconnectBody)
        row = without(text)
        if row is not None:
            raise ForbiddenError(f"container cannot be disconnected from {row['Name']} network")
        await joins.disconnect(await require(text), body)
        return Response(status_code=200)

    @routes.post("/networks/prune")
    async def prune(request: Request) -> Response:
        wanted = prunes.parse_prune_filters(request.query_params.get("filters", ""))
        now_ns = fleet.clock.now_ns()
        deleted = []
        for record in fleet.networks():
            if record.name == DEFAULT_NETWORK or networks.members(record):
                continue
            if prunes.is_pruned(wanted, record.labels, record.created_at_ns, now_ns):
                await networks.remove(record)
                deleted.append(record.name)
        return answer({"NetworksDeleted": deleted or None})

    return routes
