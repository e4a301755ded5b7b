"""Routes of images: answered by the image store."""

from typing import Any

from fastapi import APIRouter, Request, Response

from labfleet_api.core import filters, image_views, registry_auth
from labfleet_api.core.image_views import LIST_FILTERS
from labfleet_api.core.prunes import is_pruned, parse_prune_filters
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, flag, version_of
from labfleet_api.service.shelf import Shelf
from labfleet_proto.errors import InvalidRequestError, LabfleetError
from labfleet_proto.images import TAG_IMAGE, ImageSummary, TagImage
from labfleet_proto.upstreams import DESCRIBE_REMOTE, DescribeRemote

_SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})
_MOST_FOUND = 100


def router(fleet: Fleet) -> APIRouter:  # noqa: C901 - a table of routes
    """Routes below `/images`."""
    routes = APIRouter()
    shelf = Shelf(fleet)

    @routes.get("/images/json")
    async def images(request: Request) -> Response:
        wanted = filters.parse_filters(request.query_params.get("filters", ""), LIST_FILTERS)
        found = (await shelf.every()).images
        used = [record.image.image_id for record in fleet.records()]
        return answer(
            [
                image_views.row(
                    image,
                    used.count(image.image_id) if flag(request, "shared-size") else -1,
                    with_shared=flag(request, "shared-size"),
                )
                for image in image_views.matching(found, wanted)
            ]
        )

    @routes.get("/images/search")
    async def search(request: Request) -> Response:
        asked = request.query_params
        wanted = filters.parse_filters(asked.get("filters", ""), _SEARCH_FILTERS)
        term, limit = asked.get("term", ""), asked.get("limit", "")
        if not term:
            raise InvalidRequestError("Invalid search term: it is empty")
        if limit and not (limit.isascii() and limit.isdigit() and 0 < int(limit) <= _MOST_FOUND):
            raise InvalidRequestError(f"limit {limit} is outside the range of [1, {_MOST_FOUND}]")
        found = image_views.search((await shelf.every()).images, term, wanted)
        return answer(found[: int(limit or 25)])

    @routes.get("/images/{name:path}/json")
    async def inspect(name: str, request: Request) -> Response:
        return answer(image_views.inspect(await shelf.resolve(name), version_of(request)))

    @routes.get("/images/{name:path}/history")
    async def history(name: str) -> Response:
        return answer(image_views.history(await shelf.resolve(name)))

    @routes.get("/distribution/{name:path}/json")
    async def distribution(name: str, request: Request) -> Response:
        login = registry_auth.login_of(request.headers.get("x-registry-auth", ""))
        wish = DescribeRemote(reference=name, login=login)
        found = await fleet.bus.call(DESCRIBE_REMOTE, wish, tenant=fleet.tenant, subject=name)
        return answer(image_views.distribution(found))

    @routes.post("/images/{name:path}/tag")
    async def tag(name: str, request: Request) -> Response:
        repository, label = request.query_params.get("repo", ""), request.query_params.get("tag")
        if not repository:
            raise InvalidRequestError("repository name must have at least one component")
        if repository.removeprefix("docker.io/library/").partition(":")[0] == "sha256":
            raise InvalidRequestError(
                "refusing to create an ambiguous tag using digest algorithm as name"
            )
        target = f"{repository}:{label}" if label else repository
        await fleet.bus.call(
            TAG_IMAGE, TagImage(source=name, target=target), tenant=fleet.tenant, subject=name
        )
        return Response(status_code=201)

    @routes.post("/images/prune")
    async def prune(request: Request) -> Response:
        return answer(await _prune(fleet, shelf, request.query_params.get("filters", "")))

    @routes.delete("/images/{name:path}")
    async def remove(name: str, request: Request) -> Response:
        return answer(image_views.removed(await shelf.remove(name, force=flag(request, "force"))))

    return routes


def _stays(image: ImageSummary, *, only_dangling: bool) -> bool:
    """Whether a prune leaves an image, whoever uses it: shared ones are the operators'."""
    return not image.is_own or (only_dangling and bool(image.tags))


async def _prune(fleet: Fleet, shelf: Shelf, text: str) -> dict[str, Any]:
    wanted = parse_prune_filters(text, "dangling")
    only_dangling = filters.truth(wanted.get("dangling", ("true",))[0], "dangling")
    deleted: list[dict[str, str]] = []
    freed = 0
    for image in (await shelf.every()).images:
        created_at_ns = image.created_at_s * 1_000_000_000
        if _stays(image, only_dangling=only_dangling) or shelf.users(image.image_id):
            continue
        if not is_pruned(wanted, image.labels, created_at_ns, fleet.clock.now_ns()):
            continue
        try:
            done = await shelf.remove(image.image_id, force=True)
        except LabfleetError as exc:  # meanwhile used or gone: it stays, as in docker
            fleet.chassis.log.info("image.stays", image=image.image_id, why=exc.message)
            continue
        deleted += image_views.removed(done)
        freed += done.freed_bytes
    await fleet.emit("image", "prune", "", {"reclaimed": str(freed)})
    return {"ImagesDeleted": deleted or None, "SpaceReclaimed": freed}
