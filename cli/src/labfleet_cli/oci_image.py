"""Building a one-layer OCI image and pushing it to the fleet's registry."""

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CHUNK = 4 << 20
_LIMIT = httpx.Timeout(120.0, connect=5.0)
_FAST = 3

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ImagePlan:
    """What the image is, apart from its files."""

    repository: str
    tags: tuple[str, ...]
    command: tuple[str, ...]
    created: str
    """RFC 3339; the same input must give the same image."""
    created_by: str
    architecture: str = "amd64"


def compress(tar: Path, target: Path) -> tuple[str, str, int]:
    """Compress a tar; return the layer's digest, its diff id and its size."""
    diff = hashlib.sha256()
    with (
        tar.open("rb") as source,
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_FAST, fileobj=raw, mtime=0) as out,
    ):
        while data := source.read(_CHUNK):
            diff.update(data)
            out.write(data)
    whole = hashlib.sha256()
    with target.open("rb") as source:
        while data := source.read(_CHUNK):
            whole.update(data)
    return f"sha256:{whole.hexdigest()}", f"sha256:{diff.hexdigest()}", target.stat().st_size


def config_of(plan: ImagePlan, diff_id: str) -> bytes:
    """Return the image config document."""
    return _dump(
        {
            "created": plan.created,
            "architecture": plan.architecture,
            "os": "linux",
            "config": {
                "Env": [f"PATH={DEFAULT_PATH}"],
                "Cmd": list(plan.command),
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": plan.created, "created_by": plan.created_by}],
        }
    )


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def push(plan: ImagePlan, tar: Path, registry_url: str, on_progress: Progress) -> str:
    """Push the image under all its tags; blobs that are there are skipped. Returns its image id.

    Raises httpx.HTTPError with the registry's answer.
    """
    layer = tar.with_suffix(".tar.gz")
    digest, diff_id, size = compress(tar, layer)
    config = config_of(plan, diff_id)
    image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = _dump(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": image_id, "size": len(config)},
            "layers": [{"mediaType": _LAYER, "digest": digest, "size": size}],
        }
    )
    with httpx.Client(base_url=f"{registry_url}/v2/{plan.repository}", timeout=_LIMIT) as client:
        with layer.open("rb") as source:
            _push_blob(client, digest, size, source, on_progress)
        _push_blob(client, image_id, len(config), io.BytesIO(config), on_progress)
        for tag in plan.tags:
            answer = client.put(
                f"/manifests/{tag}", content=manifest, headers={"Content-Type": _MANIFEST}
            )
            answer.raise_for_status()
            on_progress(f"{plan.repository}:{tag} is {image_id[7:19]}")
    return image_id


def _push_blob(
    client: httpx.Client, digest: str, size: int, source: Any, on_progress: Progress
) -> None:
    if client.head(f"/blobs/{digest}").status_code == 200:
        on_progress(f"{digest[7:19]}: already there")
        return
    location = client.post("/blobs/uploads/").raise_for_status().headers["location"]
    url = client.base_url.copy_with(path=location)
    client.put(
        url,
        params={"digest": digest},
        content=iter(lambda: source.read(_CHUNK), b""),
        headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
    ).raise_for_status()
    on_progress(f"{digest[7:19]}: {size >> 10} KiB pushed")
