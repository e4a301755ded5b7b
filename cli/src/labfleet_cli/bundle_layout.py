"""What an image bundle is: an OCI image layout in a tar, with a signature over its `index.json`.

The index names manifests by digest, manifests name blobs by digest: whoever signs the index signs every byte.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labfleet_proto.errors import InvalidRequestError

LAYOUT = "oci-layout"
INDEX = "index.json"
SIGNATURE = "index.json.sig"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
NAME_ANNOTATION = "io.containerd.image.name"
LAYOUT_TEXT = b'{"imageLayoutVersion":"1.0.0"}'
MOST_MANIFEST_BYTES = 4 << 20
MOST_IMAGES = 1000
MOST_BLOBS = 20_000

_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
INDEX_TYPES = (_OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DOCKER = "application/vnd.docker."
_OCI_TYPES = {
    f"{_DOCKER}distribution.manifest.v2+json": MANIFEST_TYPES[0],
    f"{_DOCKER}distribution.manifest.list.v2+json": _OCI_INDEX,
    f"{_DOCKER}container.image.v1+json": "application/vnd.oci.image.config.v1+json",
    f"{_DOCKER}image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    f"{_DOCKER}image.rootfs.diff.tar.gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    f"{_DOCKER}image.rootfs.diff.tar.zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
"""Docker's names of the same content: readers of layouts know only the OCI's."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,254}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Descriptor:
    """A reference to content (OCI image-spec)."""

    media_type: str
    digest: str
    size: int
    platform: tuple[str, str] | None = None
    """Operating system and architecture, where an index says it."""

    @property
    def member(self) -> str:
        """Where it lies in a layout."""
        return f"blobs/{self.digest.replace(':', '/')}"

    @property
    def is_manifest(self) -> bool:
        """Whether it refers to further content."""
        return self.media_type in INDEX_TYPES or self.media_type in MANIFEST_TYPES


@dataclass(frozen=True)
class Image:
    """One entry of the index."""

    repository: str
    tag: str
    manifest: Descriptor

    @property
    def name(self) -> str:
        """As docker prints it."""
        return f"{self.repository}:{self.tag}"


def split_name(name: str) -> tuple[str, str]:
    """Repository and tag of an image's familiar name. Raises InvalidRequestError."""
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, "latest"
    for prefix in ("docker.io/library/", "docker.io/", "library/"):
        if head.startswith(prefix):
            head = head.removeprefix(prefix)
            break
    if _REPOSITORY.fullmatch(head) is None or _TAG.fullmatch(tag) is None or ".." in head:
        raise InvalidRequestError(f"{name[:200]!r} is no name of an image with a tag")
    return head, tag


def index_of(images: list[Image]) -> bytes:
    """The layout's `index.json`."""
    rows = [
        {
            "mediaType": image.manifest.media_type,
            "digest": image.manifest.digest,
            "size": image.manifest.size,
            "annotations": {REF_ANNOTATION: image.name, NAME_ANNOTATION: image.name},
        }
        for image in images
    ]
    document = {"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": rows}
    return json.dumps(document, separators=(",", ":")).encode()


def images_of(index: bytes) -> list[Image]:
    """Parse an `index.json` of whoever. Raises InvalidRequestError."""
    rows = _object(index, INDEX).get("manifests")
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_IMAGES:
        raise InvalidRequestError(f"bundle: {INDEX} names no images, or more than {MOST_IMAGES}")
    found = []
    for row in rows:
        notes = row.get("annotations") if isinstance(row, dict) else None
        if not isinstance(notes, dict):
            raise InvalidRequestError(f"bundle: {INDEX} has an image without a name")
        name = notes.get(NAME_ANNOTATION) or notes.get(REF_ANNOTATION)
        repository, tag = split_name(str(name or ""))
        found.append(Image(repository, tag, _descriptor(row, INDEX)))
    if not all(image.manifest.is_manifest for image in found):
        raise InvalidRequestError(f"bundle: {INDEX} refers to what is no manifest")
    return found


def references(descriptor: Descriptor, body: bytes) -> list[Descriptor]:
    """What a manifest or an index refers to, the config first. Raises InvalidRequestError."""
    document = _object(body, descriptor.digest)
    if document.get("mediaType", descriptor.media_type) != descriptor.media_type:
        raise InvalidRequestError(f"bundle: {descriptor.digest} is of another media type")
    if descriptor.media_type in INDEX_TYPES:
        rows = document.get("manifests")
    else:
        layers = document.get("layers")
        rows = [document.get("config"), *layers] if isinstance(layers, list) else None
    if not isinstance(rows, list) or len(rows) > MOST_IMAGES:
        raise InvalidRequestError(f"bundle: {descriptor.digest} is no manifest")
    return [_descriptor(row, descriptor.digest) for row in rows]


def in_oci_words(
    descriptor: Descriptor, body: bytes, children: Mapping[str, Descriptor]
) -> tuple[Descriptor, bytes]:
    """A manifest as a layout has it, its children replaced; unchanged where it is one already."""
    document = _object(body, descriptor.digest)
    kind = _OCI_TYPES.get(descriptor.media_type, descriptor.media_type)
    for row in (
        document.get("config"),
        *document.get("layers", ()),
        *document.get("manifests", ()),
    ):
        if isinstance(row, dict):
            row["mediaType"] = _OCI_TYPES.get(row["mediaType"], row["mediaType"])
            child = children.get(row["digest"])
            if child is not None:
                row |= {"digest": child.digest, "size": child.size}
    if document == _object(body, descriptor.digest) and kind == descriptor.media_type:
        return descriptor, body
    document["mediaType"] = kind
    made = json.dumps(document, separators=(",", ":")).encode()
    return Descriptor(kind, digest_of(made), len(made)), made


def signature_text(fingerprint: str, signature: bytes) -> bytes:
    """The signature's member."""
    document = {"key": fingerprint, "signature": base64.b64encode(signature).decode()}
    return json.dumps(document, separators=(",", ":")).encode()


def parse_signature(data: bytes) -> tuple[str, bytes]:
    """Fingerprint of the key and the signature. Raises InvalidRequestError."""
    document = _object(data, SIGNATURE)
    try:
        return str(document["key"]), base64.b64decode(str(document["signature"]), validate=True)
    except (KeyError, binascii.Error, ValueError) as exc:
        raise InvalidRequestError(f"bundle: {SIGNATURE} is no signature") from exc


def digest_of(data: bytes) -> str:
    """The sha256 digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(row: object, where: str) -> Descriptor:
    if isinstance(row, Mapping):
        media_type, digest, size = (row.get(key) for key in ("mediaType", "digest", "size"))
        is_good = isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None
        if is_good and isinstance(media_type, str) and type(size) is int and size >= 0:
            return Descriptor(media_type, str(digest), size, _platform(row.get("platform")))
    raise InvalidRequestError(f"bundle: {where} has a descriptor without sense")


def _platform(value: object) -> tuple[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    return str(value.get("os")), str(value.get("architecture"))


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequestError(f"bundle: {name} is no JSON") from exc
    if not isinstance(found, dict):
        raise InvalidRequestError(f"bundle: {name} is no object")
    return found
