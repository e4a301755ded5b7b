"""Routes that move images: pull, import, push, load, save."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive

from labfleet_api.core import changes, registry_auth
from labfleet_api.core.platforms import check_form, platform_of_new
from labfleet_api.service.exchange import (
    Exchange,
    line_of,
)
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import flag
from labfleet_api.service.identities import SCOPES
from labfleet_api.service.shelf import Shelf
from labfleet_chassis import frames
from labfleet_chassis.data_port import ByteStream
from labfleet_proto.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
)
from labfleet_proto.ids import OPERATORS
from labfleet_proto.image_streams import (
    AddImage,
    LoadImages,
    NewImage,
    PullImage,
    SaveImages,
)
from labfleet_proto.images import ImageDetail
from labfleet_proto.tenants import Scope

_FETCH_LIMIT = httpx.Timeout(60.0, connect=10.0)


def router(fleet: Fleet) -> APIRouter:  # noqa: C901 - a table of routes
    """Routes of transfers."""
    routes = APIRouter()
    shelf = Shelf(fleet)

    @routes.post("/images/create")
    async def create(request: Request) -> Response:
        asked = request.query_params
        if asked.get("fromSrc"):
            return await _import(fleet, request, asked["fromSrc"])
        name, tag = asked.get("fromImage", ""), asked.get("tag", "")
        if not name:
            raise InvalidRequestError("fromImage: no image was named")
        platform = asked.get("platform", "")
        check_form(platform)
        login = registry_auth.login_of(request.headers.get("x-registry-auth", ""))
        wish = PullImage(name=name.removesuffix(":"), tag=tag, platform=platform, login=login)
        return await _pull(fleet, wish)

    @routes.post("/images/{name:path}/push")
    async def push(name: str, request: Request) -> Response:
        tag = request.query_params.get("tag", "")
        images = await _tagged(shelf, name, tag)
        if not images:
            raise NotFoundError(f"An image does not exist locally with the tag: {_bare(name)}")
        lines = [{"status": f"The push refers to repository [{name}]"}]
        for label, image in images:
            lines += _pushed(label, image)
            await fleet.emit("image", "push", f"{name}:{label}", {"name": f"{name}:{label}"})
        return _lines(lines)

    @routes.get("/images/get")
    async def save_several(request: Request) -> Response:
        names = [name for text in request.query_params.getlist("names") for name in text.split(",")]
        if not any(names):
            raise InvalidRequestError("names: no image was named")
        return await _saved(fleet, tuple(name for name in names if name))

    @routes.get("/images/{name:path}/get")
    async def save(name: str) -> Response:
        return await _saved(fleet, (name,))

    @routes.post("/images/load")
    async def load(request: Request) -> Response:
        stack = AsyncExitStack()
        wish = LoadImages(is_quiet=flag(request, "quiet"))
        store = await stack.enter_async_context(fleet.store_stream(wish))
        return Exchange(stack, store, tells_refusals=True)

    return routes


def _lines(lines: list[dict[str, Any]]) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for line in lines:
            yield line_of(line)

    return StreamingResponse(body(), media_type="application/json")


async def _saved(fleet: Fleet, names: tuple[str, ...]) -> Response:
    stack = AsyncExitStack()
    store = await stack.enter_async_context(fleet.store_stream(SaveImages(names=names)))
    return Exchange(stack, store, None, is_lines=False)


# -- pull and push


async def _tagged(shelf: Shelf, name: str, tag: str) -> list[tuple[str, ImageDetail]]:
    """Tags of a repository with their images; the one that is named, or all."""
    if tag:
        try:
            return [(tag, await shelf.resolve(joined(name, tag)))]
        except NotFoundError:
            return []
    if "@" in name or ":" in name.rpartition("/")[2]:
        found = await shelf.resolve(name)
        return [(name.rpartition(":")[2], found)]
    found_tags = []
    for image in (await shelf.every()).images:
        for each in image.tags:
            repository, _, label = each.rpartition(":")
            if repository == _bare(name):
                found_tags.append(label)
    return [(label, await shelf.resolve(joined(name, label))) for label in sorted(found_tags)]


def _bare(name: str) -> str:
    """A repository's familiar name, without docker's own prefixes."""
    for prefix in ("docker.io/library/", "docker.io/", "library/"):
        name = name.removeprefix(prefix)
    return name


def target_of(repository: str, tag: str) -> str:
    """The name that is to be given; empty for none. The repository may bring its tag along."""
    return joined(repository, tag) if repository and tag else repository


def joined(name: str, tag: str) -> str:
    """A name with a tag or a digest."""
    return f"{name}{'@' if ':' in tag else ':'}{tag}"


async def _pull(fleet: Fleet, wish: PullImage) -> Response:
    stack = AsyncExitStack()
    store = await stack.enter_async_context(fleet.store_stream(wish))
    return Exchange(stack, store, None)


def _pushed(label: str, image: ImageDetail) -> list[dict[str, Any]]:
    digest, size = image.pin.manifest_digest, image.manifest_bytes
    return [
        *(
            {"status": status, "progressDetail": {}, "id": layer.diff_id[7:19]}
            for status in ("Preparing", "Layer already exists")
            for layer in image.pin.layers
        ),
        {"status": f"{label}: digest: {digest} size: {size}"},
        {"progressDetail": {}, "aux": {"Tag": label, "Digest": digest, "Size": size}},
    ]


# -- import


async def _import(fleet: Fleet, request: Request, source: str) -> Response:
    asked = request.query_params
    if Scope.IMAGES not in request.scope.get(SCOPES, ()):
        raise ForbiddenError("authorization denied: an import needs the scope images")
    wish = AddImage(
        config=changes.apply({}, asked.getlist("changes")),
        target=target_of(asked.get("repo", ""), asked.get("tag", "")),
        comment=asked.get("message") or f"Imported from {source}",
        platform=platform_of_new(asked.get("platform", "")),
    )
    stack = AsyncExitStack()
    store = await stack.enter_async_context(fleet.store_stream(wish))
    if source == "-":
        return Exchange(stack, store, translate=_imported)
    is_operator = fleet.tenant == OPERATORS

    async def fetch(store: ByteStream, _receive: Receive) -> None:
        await _fetch(store, source, is_local=is_operator)

    return Exchange(stack, store, fetch, _imported)


def _imported(line: bytes) -> bytes:
    """The store's word on a new image in docker's form."""
    return line_of({"status": NewImage.model_validate_json(line).image_id})


async def _fetch(store: ByteStream, url: str, *, is_local: bool) -> None:
    """Send what a URL holds. Raises ForbiddenError, InvalidRequestError, ConflictError."""
    if not is_local:
        raise ForbiddenError(
            "fromSrc: the fleet fetches a URL for its operators only; send the tar"
        )
    wanted = url if "://" in url else f"http://{url}"
    if urlsplit(wanted).scheme not in ("http", "https"):
        raise InvalidRequestError(f"fromSrc: {url} is neither http nor https")
    try:
        async with (
            httpx.AsyncClient(timeout=_FETCH_LIMIT, follow_redirects=True) as client,
            client.stream("GET", wanted) as found,
        ):
            found.raise_for_status()
            with contextlib.suppress(ConnectionError):
                async for data in found.aiter_bytes(1 << 18):
                    await frames.send(store, data)
                await frames.end(store)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ConflictError(f"cannot fetch {url}: {exc}") from exc
