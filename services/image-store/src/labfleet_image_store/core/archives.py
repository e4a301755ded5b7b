"""What is in a tar of images: docker's `manifest.json` and the OCI layout, read and written."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labfleet_image_store.core.manifests import OCI_INDEX, OCI_MANIFEST
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest

DOCKER_MANIFEST_FILE = "manifest.json"
OCI_INDEX_FILE = "index.json"
LAYOUT_FILE = "oci-layout"
REPOSITORIES_FILE = "repositories"
NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class ArchivedImage:
    """One entry of `manifest.json`: names of members."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def docker_images(data: bytes) -> tuple[ArchivedImage, ...]:
    """Parse `manifest.json`. Raises InvalidRequestError."""
    try:
        entries = json.loads(data)
        return tuple(
            ArchivedImage(
                _text(entry["Config"]),
                tuple(_text(each) for each in entry["Layers"] or ()),
                tuple(_text(each) for each in entry.get("RepoTags") or ()),
            )
            for entry in entries
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise InvalidRequestError(f"archive: {DOCKER_MANIFEST_FILE} is invalid: {exc!r}") from exc


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


@dataclass(frozen=True)
class LaidOut:
    """One image of an OCI layout."""

    digest: Digest
    name: str


def laid_out_images(index: Mapping[str, Any]) -> tuple[LaidOut, ...]:
    """Parse `index.json` of an OCI layout. Raises InvalidRequestError."""
    try:
        found = []
        for entry in index["manifests"]:
            notes = entry.get("annotations") or {}
            name = notes.get(NAME_ANNOTATION) or notes.get(REF_ANNOTATION) or ""
            found.append(LaidOut(Digest(_text(entry["digest"])), _text(name)))
        return tuple(found)
    except (TypeError, KeyError, AttributeError) as exc:
        raise InvalidRequestError(f"archive: {OCI_INDEX_FILE} is invalid: {exc!r}") from exc


def blob_member(digest: str) -> str:
    """Where a blob lies in an OCI layout."""
    return f"blobs/{digest.replace(':', '/')}"


@dataclass(frozen=True)
class SavedImage:
    """An image to be saved; layers as plain tars, named by their diff ids."""

    image_id: Digest
    config: bytes
    layers: tuple[tuple[Digest, int], ...]
    """Diff id and size of each, base first."""
    names: tuple[str, ...]
    """Familiar, with tags."""


def oci_manifest(image: SavedImage) -> bytes:
    """The image's manifest with plain layers."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": _OCI_CONFIG,
                "digest": image.image_id,
                "size": len(image.config),
            },
            "layers": [
                {"mediaType": _OCI_LAYER, "digest": diff_id, "size": size}
                for diff_id, size in image.layers
            ],
        }
    )


def small_members(images: Sequence[SavedImage]) -> dict[str, bytes]:
    """All members but the layers, by name: docker's two tables, the layout, configs and manifests."""
    members: dict[str, bytes] = {}
    table, index = [], []
    repositories: dict[str, dict[str, str]] = {}
    for image in images:
        manifest = oci_manifest(image)
        digest = digest_of(manifest)
        members[blob_member(image.image_id)] = image.config
        members[blob_member(digest)] = manifest
        top = image.layers[-1][0].removeprefix("sha256:") if image.layers else ""
        for name in image.names:
            repository, _, tag = name.rpartition(":")
            repositories.setdefault(repository, {})[tag] = top
        table.append(
            {
                "Config": blob_member(image.image_id),
                "RepoTags": list(image.names) or None,
                "Layers": [blob_member(diff_id) for diff_id, _ in image.layers],
                "LayerSources": {
                    diff_id: {"mediaType": _OCI_LAYER, "size": size, "digest": diff_id}
                    for diff_id, size in image.layers
                },
            }
        )
        index += [_row(digest, len(manifest), name) for name in image.names or ("",)]
    members[LAYOUT_FILE] = _json({"imageLayoutVersion": "1.0.0"})
    members[OCI_INDEX_FILE] = _json(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index}
    )
    members[DOCKER_MANIFEST_FILE] = _json(table)
    if repositories:
        members[REPOSITORIES_FILE] = _json(repositories)
    return members


def _row(digest: str, size: int, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": digest, "size": size}
    if name:
        row["annotations"] = {
            NAME_ANNOTATION: canonical_name(name),
            REF_ANNOTATION: name.rpartition(":")[2],
        }
    return row


def canonical_name(name: str) -> str:
    """A familiar name in full, as containerd and OCI layouts have it."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"


def digest_of(data: bytes) -> Digest:
    """Digest of some bytes."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
