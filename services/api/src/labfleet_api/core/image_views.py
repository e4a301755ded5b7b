"""Images in docker's JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from labfleet_api.core import filters
from labfleet_api.core.times import ZERO, parse_time, rfc3339
from labfleet_proto.errors import InvalidRequestError, NotFoundError
from labfleet_proto.images import ImageDetail, ImageRemoved, ImageSummary
from labfleet_proto.upstreams import RemoteDescription

LIST_FILTERS = frozenset({"reference", "label", "dangling", "before", "since", "until"})


def row(
    image: ImageSummary, users: int, *, with_shared: bool, with_digests: bool = True
) -> dict[str, Any]:
    """A row of `docker images`."""
    return {
        "Id": image.image_id,
        "ParentId": "",
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests) if with_digests else [],
        "Created": image.created_at_s,
        "Size": image.size_bytes,
        "SharedSize": image.shared_bytes if with_shared else -1,
        "Labels": image.labels or None,
        "Containers": users,
    }


def matching(images: Sequence[ImageSummary], wanted: filters.Filters) -> list[ImageSummary]:
    """The images that a list's filters let through. Raises NotFoundError, InvalidRequestError."""
    before = [_made_ns(_named(images, text)) for text in wanted.get("before", ())]
    since = [_made_ns(_named(images, text)) for text in wanted.get("since", ())]
    until = [parse_time(text, "until") for text in wanted.get("until", ())]
    found = [
        image
        for image in images
        if all(_made_ns(image) < moment for moment in (*before, *until))
        and all(_made_ns(image) > moment for moment in since)
        and _matches(image, wanted)
    ]
    references = wanted.get("reference")
    if references is None:
        return found
    named = [_with_names(image, references) for image in found]
    return [image for image in named if image.tags or image.digests]


def _made_ns(image: ImageSummary) -> int:
    return image.created_at_ns or image.created_at_s * 1_000_000_000


def _with_names(image: ImageSummary, patterns: Sequence[str]) -> ImageSummary:
    """The image with those of its names that a pattern matches, as docker lists it."""
    kept = {
        kind: tuple(
            each
            for each in getattr(image, kind)
            if any(filters.any_path(patterns, name) for name in _spellings(each))
        )
        for kind in ("tags", "digests")
    }
    return image.model_copy(update=kept)


def _named(images: Sequence[ImageSummary], text: str) -> ImageSummary:
    bare = text.removeprefix("sha256:")
    for image in images:
        if text in image.tags or f"{text}:latest" in image.tags or text in image.digests:
            return image
        if len(bare) >= 4 and image.image_id.removeprefix("sha256:").startswith(bare):
            return image
    raise NotFoundError(f"No such image: {text}")


def _matches(image: ImageSummary, wanted: filters.Filters) -> bool:
    if "label" in wanted and not filters.labels_match(wanted["label"], image.labels):
        return False
    if "dangling" in wanted:
        is_wanted = filters.truth(wanted["dangling"][0], "dangling")
        if bool(image.tags) is is_wanted:
            return False
    return True


def _spellings(name: str) -> tuple[str, ...]:
    bare = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
    return (name, bare)


_WITHOUT_CONTAINER = (1, 45)


def inspect(image: ImageDetail, version: tuple[int, int] = (1, 50)) -> dict[str, Any]:
    """The answer of `docker image inspect`; the API's versions below 1.45 tell of the container too."""
    config = image.config
    inner = config.get("config")
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else []
    made_by = config.get("container_config")
    of_container: dict[str, Any] = {
        "Container": config.get("container") or "",
        "ContainerConfig": made_by if isinstance(made_by, dict) else {},
    }
    return {
        **(of_container if version < _WITHOUT_CONTAINER else {}),
        "Id": image.pin.image_id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": config.get("parent") or "",
        "Comment": config.get("comment") or _last_step(config, "comment"),
        "Created": config.get("created") or ZERO,
        "DockerVersion": config.get("docker_version") or "",
        "Author": config.get("author") or _last_step(config, "author"),
        "Config": inner if isinstance(inner, dict) else {},
        "Architecture": config.get("architecture") or "amd64",
        "Variant": config.get("variant") or "",
        "Os": config.get("os") or "linux",
        "Size": image.size_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": {}},
        "RootFS": {"Type": "layers", "Layers": diff_ids},
        "Metadata": {"LastTagTime": rfc3339(image.tagged_at_ns)},
    }


def _last_step(config: Mapping[str, Any], key: str) -> str:
    steps = _steps(config)
    return str(steps[-1].get(key) or "") if steps else ""


def _steps(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = config.get("history")
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def history(image: ImageDetail) -> list[dict[str, Any]]:
    """The steps of an image, newest first; an image whose config names none has one a layer."""
    layers = list(image.layer_bytes)
    steps = (
        _steps(image.config) or [{"created": image.config.get("created")} for _ in layers] or [{}]
    )
    rows: list[dict[str, Any]] = []
    for step in steps:
        size = 0 if step.get("empty_layer") or not layers else layers.pop(0)
        rows.append(
            {
                "Id": "<missing>",
                "Created": _seconds(step.get("created")),
                "CreatedBy": step.get("created_by") or "",
                "Tags": None,
                "Size": size,
                "Comment": step.get("comment") or "",
            }
        )
    rows.reverse()
    rows[0]["Id"] = image.pin.image_id
    rows[0]["Tags"] = list(image.tags) or None
    return rows


def _seconds(stamp: object) -> int:
    if not isinstance(stamp, str) or not stamp:
        return 0
    return parse_time(stamp, "created") // 1_000_000_000


def removed(done: ImageRemoved) -> list[dict[str, str]]:
    """The answer of `docker rmi`."""
    return [{"Untagged": each} for each in done.untagged] + [
        {"Deleted": each} for each in done.deleted
    ]


def distribution(found: RemoteDescription) -> dict[str, Any]:
    """What a registry says of an image."""
    return {
        "Descriptor": {
            "mediaType": found.media_type,
            "digest": found.digest,
            "size": found.size_bytes,
        },
        "Platforms": [
            each.model_dump(exclude={} if each.variant else {"variant"}) for each in found.platforms
        ],
    }


def search(
    images: Sequence[ImageSummary], term: str, wanted: filters.Filters
) -> list[dict[str, Any]]:
    """Rows of `docker search`: repositories whose name holds the term. Raises InvalidRequestError."""
    is_official = [filters.truth(each, "is-official") for each in wanted.get("is-official", ())]
    is_automated = [filters.truth(each, "is-automated") for each in wanted.get("is-automated", ())]
    stars = [_count(each) for each in wanted.get("stars", ())]
    found: dict[str, str] = {}
    for image in images:
        for tag in image.tags:
            name = tag.rpartition(":")[0]
            if term.lower() in name.lower():
                found.setdefault(name, image.labels.get("org.opencontainers.image.description", ""))
    return [
        {
            "name": name,
            "description": found[name],
            "star_count": 0,
            "is_official": "/" not in name,
            "is_automated": False,
        }
        for name in sorted(found)
        if all(("/" not in name) is each for each in is_official)
        and not any(is_automated)
        and not any(stars)
    ]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequestError(f"invalid filter 'stars={text}'")
    return int(text)
