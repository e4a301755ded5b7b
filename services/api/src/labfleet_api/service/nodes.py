"""Routes of nodes: the fleet's hosts, for its operators."""

from importlib.metadata import version

from fastapi import APIRouter, Request, Response

from labfleet_api.core import filters, nodes
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, number, read_body
from labfleet_chassis.store import ExistsError
from labfleet_proto.errors import ConflictError, StaleError
from labfleet_proto.hosts import HostRecord

_FILTERS = frozenset({"id", "name", "label", "node.label", "membership", "role"})


def router(fleet: Fleet) -> APIRouter:
    """Routes below `/nodes`."""
    routes = APIRouter()

    def view(host: HostRecord) -> nodes.Json:
        entry = fleet.memory.policies.entries.get(host.id)
        return nodes.node_view(
            host,
            entry.value if entry else None,
            entry.revision if entry else 0,
            version("labfleet"),
            is_lost=fleet.is_lost(host.id),
        )

    @routes.get("/nodes")
    async def every(request: Request) -> Response:
        wanted = filters.parse_filters(request.query_params.get("filters", ""), _FILTERS)
        hosts = sorted(fleet.memory.hosts.values(), key=lambda host: host.id)
        rows = [view(host) for host in hosts]
        return answer([row for row in rows if nodes.matches(row, wanted)])

    @routes.get("/nodes/{text}")
    async def inspect(text: str) -> Response:
        return answer(view(nodes.find_host(text, fleet.memory.hosts.values())))

    @routes.post("/nodes/{text}/update")
    async def update(text: str, request: Request) -> Response:
        host = nodes.find_host(text, fleet.memory.hosts.values())
        body = await read_body(request, nodes.NodeBody)
        policy = nodes.checked_policy(host, body, fleet.clock.now_ns())
        seen = number(request, "version", 0)
        bucket = fleet.memory.policies.bucket
        try:
            if seen == 0:
                revision = await bucket.create(host.id, policy)
            else:
                revision = await bucket.update(host.id, policy, seen)
        except (StaleError, ExistsError) as exc:
            raise ConflictError(f"update of node {host.id} out of sequence: read it again") from exc
        await fleet.memory.policies.wait_for(revision)
        fleet.chassis.log.info("host.policy", host=host.id, availability=policy.availability)
        return Response(status_code=200)

    return routes
