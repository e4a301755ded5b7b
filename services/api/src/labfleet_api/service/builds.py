"""Routes of builds: the context goes to the host that has the tenant's cache, its words are the answer."""

import secrets
from contextlib import AsyncExitStack

from fastapi import APIRouter, Request, Response

from labfleet_api.core.attachments import EndpointWish
from labfleet_api.core.build_wish import builder_of, wish_of
from labfleet_api.core.prunes import parse_prune_filters
from labfleet_api.service.exchange import Exchange
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, flag
from labfleet_api.service.networks import Networks
from labfleet_api.service.shelf import Shelf
from labfleet_proto.builds import PRUNE_BUILDS, BuildImage, PruneBuilds, build_id
from labfleet_proto.containers import Limits
from labfleet_proto.errors import InvalidRequestError, NotFoundError, UnavailableError
from labfleet_proto.host_policies import is_open
from labfleet_proto.hosts import HostRecord
from labfleet_proto.networks import InterfaceWish


def router(fleet: Fleet, networks: Networks) -> APIRouter:
    """Routes of builds."""
    routes = APIRouter()
    shelf = Shelf(fleet)

    @routes.post("/build")
    async def build(request: Request) -> Response:
        asked = request.query_params
        firsts = {name: asked.getlist(name)[0] for name in asked}  # as Go reads a form
        wish = wish_of(firsts, asked.getlist("t"), asked.getlist("extrahosts"))
        is_cached = not flag(request, "nocache") and await _may_cache(shelf, wish.cache_from)
        joined = await networks.attachments({wish.network: EndpointWish()})
        order = BuildImage(
            build=build_id(secrets.token_hex(24)),
            dockerfile=wish.dockerfile,
            names=wish.names,
            build_args=wish.build_args,
            labels=wish.labels,
            target=wish.target,
            extra_hosts=wish.extra_hosts,
            networks=tuple(
                InterfaceWish(network=each.network_id, network_name=each.network_name, names=())
                for each in joined
            ),
            limits=wish.limits,
            is_cached=is_cached,
            is_quiet=flag(request, "q"),
            is_offline=wish.is_offline,
            remote=wish.remote,
            ulimits=wish.ulimits,
        )
        stack = AsyncExitStack()
        host = await stack.enter_async_context(
            fleet.host_stream(_builder(fleet, wish.limits), order)
        )
        return Exchange(stack, host)

    @routes.post("/build/prune")
    async def prune(request: Request) -> Response:
        parse_prune_filters(
            request.query_params.get("filters", ""),
            *("id", "parent", "type", "description", "inuse", "shared", "private"),
        )
        freed = 0
        for host in _alive(fleet):
            done = await fleet.bus.call(
                PRUNE_BUILDS, PruneBuilds(), tenant=fleet.tenant, subject="builds", host=host.id
            )
            freed += done.freed_bytes
        await fleet.emit("builder", "prune", "", {"reclaimed": str(freed)})
        return answer({"CachesDeleted": None, "SpaceReclaimed": freed})

    return routes


async def _may_cache(shelf: Shelf, names: tuple[str, ...]) -> bool:
    """Whether the cache may be used: where images are named for it, only if one of them is there."""
    for name in names:
        try:
            await shelf.resolve(name)
        except (NotFoundError, InvalidRequestError):
            continue
        return True
    return not names


def _alive(fleet: Fleet) -> list[HostRecord]:
    return [host for host in fleet.memory.hosts.values() if not fleet.is_lost(host.id)]


def _builder(fleet: Fleet, limits: Limits) -> HostRecord:
    """The host of the tenant's build. Raises UnavailableError."""
    policies = fleet.memory.policies
    alive = {host.id: host for host in _alive(fleet) if is_open(host, policies.get(host.id))}
    found = builder_of(fleet.tenant, alive, limits)
    if found is None:
        raise UnavailableError("no host is there to build on")
    return found
