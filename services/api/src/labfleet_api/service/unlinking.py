"""The route that takes a legacy link away: `docker rm --link web/db`."""

from fastapi import APIRouter, Request, Response

from labfleet_api.core.links import without_link
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import flag
from labfleet_proto.errors import NotFoundError


def router(fleet: Fleet) -> APIRouter:
    """A link's name has a slash, so it looks like a path below a container's."""
    routes = APIRouter()

    @routes.delete("/containers/{text}/{alias}", include_in_schema=False)
    async def unlink(text: str, alias: str, request: Request) -> Response:
        if not flag(request, "link"):
            raise NotFoundError(f"No such container: {text}/{alias}")
        await fleet.change(fleet.find(text), lambda old: without_link(old, alias))
        return Response(status_code=204)

    return routes
