"""Config and manifest of an image that the store makes: an import, a commit, a load."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from labfleet_image_store.core.manifests import DOCKER_MANIFEST
from labfleet_proto.ids import Digest
from labfleet_proto.image_streams import AddImage

_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def config_of(
    wish: AddImage, parent: Mapping[str, Any] | None, diff_id: Digest, created: str
) -> bytes:
    """The config of an image with one more layer than `parent`; `created` is RFC 3339."""
    base = parent or {}
    rootfs = base.get("rootfs") or {}
    step: dict[str, Any] = {"created": created, "created_by": wish.created_by}
    if wish.author:
        step["author"] = wish.author
    if wish.comment:
        step["comment"] = wish.comment
    system, _, machine = wish.platform.partition("/")
    document: dict[str, Any] = {
        "architecture": machine.partition("/")[0] or base.get("architecture") or "amd64",
        "os": system or base.get("os") or "linux",
        "created": created,
        "config": wish.config,
        "rootfs": {"type": "layers", "diff_ids": [*(rootfs.get("diff_ids") or ()), diff_id]},
        "history": [*(base.get("history") or ()), step],
        "docker_version": "28.0.0",
    }
    said = {
        "author": wish.author,
        "comment": wish.comment,
        "container": wish.container,
        "container_config": wish.container_config,
        "parent": wish.parent.image_id if wish.parent else "",  # what clients of docker show
    }
    document |= {key: value for key, value in said.items() if value}
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def manifest_of(config: bytes, image_id: Digest, layers: Sequence[tuple[Digest, int]]) -> bytes:
    """A manifest of Docker's schema 2; `layers` are digests and sizes of gzip blobs, base first."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": _CONFIG, "size": len(config), "digest": image_id},
            "layers": [
                {"mediaType": _LAYER, "size": size, "digest": digest} for digest, size in layers
            ],
        },
        separators=(",", ":"),
    ).encode()
