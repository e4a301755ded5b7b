"""Routes of images: answered by the image store."""

import json
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from labfleet_api.core import filters
from labfleet_api.core.image_defaults import image_defaults
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, flag
from labfleet_proto.containers import Goal
from labfleet_proto.errors import ConflictError, InvalidRequestError, NotImplementedYetError
from labfleet_proto.images import (
    LIST_IMAGES,
    REMOVE_IMAGE,
    RESOLVE_IMAGE,
    TAG_IMAGE,
    ImageDetail,
    ImageQuery,
    ImageSummary,
    RemoveImage,
    TagImage,
    familiar_repository,
)
from labfleet_proto.message import Nothing

_FILTERS = frozenset({"reference", "label", "dangling"})


def router(fleet: Fleet) -> APIRouter:  # noqa: C901 - a table of routes
    """Routes below `/images`."""
    routes = APIRouter()

    async def resolve(reference: str) -> ImageDetail:
        return await fleet.bus.call(
            RESOLVE_IMAGE,
            ImageQuery(reference=reference),
            tenant=fleet.tenant,
            subject=reference,
        )

    @routes.get("/images/json")
    async def images(request: Request) -> Response:
        wanted = filters.parse_filters(request.query_params.get("filters", ""), _FILTERS)
        found = await fleet.bus.call(LIST_IMAGES, Nothing(), tenant=fleet.tenant, subject="images")
        used = [record.image.image_id for record in fleet.records()]
        return answer(
            [
                _row(image, used.count(image.image_id))
                for image in found.images
                if _matches(image, wanted)
            ]
        )

    @routes.post("/images/create")
    async def pull(request: Request) -> Response:
        asked = request.query_params
        if asked.get("fromSrc"):
            raise NotImplementedYetError("labfleet: POST /images/create?fromSrc is not there yet")
        name, tag = asked.get("fromImage", ""), asked.get("tag", "")
        if not name:
            raise InvalidRequestError("fromImage: no image was named")
        reference = name if not tag else f"{name}{'@' if ':' in tag else ':'}{tag}"
        image = await resolve(reference)
        shown = image.pin.reference
        short = shown.partition("@")[0].rpartition(":")
        lines: list[dict[str, Any]] = [
            {
                "status": f"Pulling from {familiar_repository(image.pin.repository)}",
                "id": short[2] if short[0] and "/" not in short[2] else "latest",
            },
            *(
                {"status": "Already exists", "progressDetail": {}, "id": layer.digest[7:19]}
                for layer in image.pin.layers
            ),
            {"status": f"Digest: {image.pin.manifest_digest}"},
            {"status": f"Status: Image is up to date for {shown}"},
        ]
        return _progress(lines)

    @routes.get("/images/{name:path}/json")
    async def inspect(name: str) -> Response:
        return answer(_inspect(await resolve(name)))

    @routes.get("/images/{name:path}/history")
    async def history(name: str) -> Response:
        return answer(_history(await resolve(name)))

    @routes.post("/images/{name:path}/push")
    async def push(name: str, request: Request) -> Response:
        tag = request.query_params.get("tag", "")
        reference = f"{name}:{tag}" if tag else name
        image = await resolve(reference)
        lines: list[dict[str, Any]] = [
            {"status": f"The push refers to repository [{name}]"},
            *(
                {"status": "Layer already exists", "progressDetail": {}, "id": layer.digest[7:19]}
                for layer in image.pin.layers
            ),
            {
                "status": f"{tag or 'latest'}: digest: {image.pin.manifest_digest} "
                f"size: {image.size_bytes}"
            },
        ]
        return _progress(lines)

    @routes.post("/images/{name:path}/tag")
    async def tag(name: str, request: Request) -> Response:
        repository, label = request.query_params.get("repo", ""), request.query_params.get("tag")
        if not repository:
            raise InvalidRequestError("repo: no repository was named")
        target = f"{repository}:{label}" if label else repository
        await fleet.bus.call(
            TAG_IMAGE, TagImage(source=name, target=target), tenant=fleet.tenant, subject=name
        )
        return Response(status_code=201)

    @routes.delete("/images/{name:path}")
    async def remove(name: str, request: Request) -> Response:
        force = flag(request, "force")
        image = await resolve(name)
        users = [
            record
            for record in fleet.records()
            if record.image.image_id == image.pin.image_id and record.goal is not Goal.REMOVED
        ]
        if users and len(image.tags) <= 1 and not force:
            short = image.pin.image_id[7:19]
            raise ConflictError(
                f"conflict: unable to remove repository reference {name!r} (must force) - "
                f"container {users[0].id[:12]} is using its referenced image {short}"
            )
        done = await fleet.bus.call(
            REMOVE_IMAGE,
            RemoveImage(reference=name, force=force),
            tenant=fleet.tenant,
            subject=name,
        )
        return answer(
            [{"Untagged": each} for each in done.untagged]
            + [{"Deleted": each} for each in done.deleted]
        )

    return routes


def _progress(lines: Iterable[dict[str, Any]]) -> Response:
    async def body() -> Any:
        for line in lines:
            yield json.dumps(line).encode() + b"\r\n"

    return StreamingResponse(body(), media_type="application/json")


def _matches(image: ImageSummary, wanted: filters.Filters) -> bool:
    if "label" in wanted and not filters.labels_match(wanted["label"], image.labels):
        return False
    if "dangling" in wanted:
        is_wanted = wanted["dangling"][0].lower() in ("1", "true")
        if bool(image.tags) is is_wanted:
            return False
    if "reference" in wanted:
        names = [name for tag in image.tags for name in (tag, tag.rpartition(":")[0])]
        return any(filters.any_glob(wanted["reference"], name) for name in names)
    return True


def _row(image: ImageSummary, users: int) -> dict[str, Any]:
    return {
        "Id": image.image_id,
        "ParentId": "",
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Created": image.created_at_s,
        "Size": image.size_bytes,
        "SharedSize": -1,
        "Labels": image.labels,
        "Containers": users,
    }


def _inspect(image: ImageDetail) -> dict[str, Any]:
    config = image.config
    inner = config.get("config")
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else []
    return {
        "Id": image.pin.image_id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": "",
        "Comment": "",
        "Created": config.get("created") or "",
        "Author": config.get("author") or "",
        "Config": inner if isinstance(inner, dict) else {},
        "Architecture": config.get("architecture") or "amd64",
        "Variant": config.get("variant") or "",
        "Os": config.get("os") or "linux",
        "Size": image.size_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": {}},
        "RootFS": {"Type": "layers", "Layers": diff_ids},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def _history(image: ImageDetail) -> list[dict[str, Any]]:
    """Newest first. Sizes are those of the stored layers."""
    steps = image.config.get("history")
    layers = list(image.pin.layers)
    rows: list[dict[str, Any]] = []
    for step in steps if isinstance(steps, list) else []:
        if not isinstance(step, dict):
            continue
        is_empty = bool(step.get("empty_layer"))
        size = 0 if is_empty or not layers else layers.pop(0).size_bytes
        rows.append(
            {
                "Id": "<missing>",
                "Created": 0,
                "CreatedBy": step.get("created_by") or "",
                "Tags": None,
                "Size": size,
                "Comment": step.get("comment") or "",
            }
        )
    if not rows:
        command = " ".join(image_defaults(image.config).command)
        rows = [
            {
                "Id": "<missing>",
                "Created": 0,
                "CreatedBy": command,
                "Tags": None,
                "Size": image.size_bytes,
                "Comment": "",
            }
        ]
    rows[-1]["Id"] = image.pin.image_id if len(rows) == 1 else rows[-1]["Id"]
    rows.reverse()
    rows[0]["Id"] = image.pin.image_id
    rows[0]["Tags"] = list(image.tags)
    return rows
