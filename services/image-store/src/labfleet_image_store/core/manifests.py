"""Manifests and indexes: OCI image-spec 1.1 and Docker's schema 2, parsed and checked."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest
from labfleet_proto.images import LayerRef

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MOST_BYTES = 4 << 20
MOST_LAYERS = 127
_FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.",
    "application/vnd.oci.image.layer.nondistributable.",
)

_DigestText = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Loose(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


class Platform(_Loose):
    """What machine a child of an index is for."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(_Loose):
    """A reference to content."""

    media_type: Annotated[str, Field(alias="mediaType", min_length=1, max_length=255)]
    digest: _DigestText
    size: Annotated[int, Field(ge=0)]
    platform: Platform | None = None


class _Document(_Loose):
    schema_version: int = Field(alias="schemaVersion")
    media_type: str | None = Field(default=None, alias="mediaType")
    artifact_type: str | None = Field(default=None, alias="artifactType")
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


@dataclass(frozen=True)
class Manifest:
    """A valid manifest (`config` set) or index (`children`)."""

    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    subject: str | None
    artifact_type: str
    annotations: dict[str, str]

    @property
    def blobs(self) -> list[str]:
        """Digests of the blobs that must exist in the repository; foreign layers lie elsewhere."""
        own = [layer.digest for layer in self.layers if not layer.media_type.startswith(_FOREIGN)]
        return own if self.config is None else [self.config.digest, *own]


def parse(data: bytes, content_type: str) -> Manifest:
    """Parse and check a manifest; `content_type` is what the client called it, or empty.

    Raises InvalidRequestError naming the rule that is broken.
    """
    try:
        document = _Document.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidRequestError(f"manifest invalid: {place}: {first['msg']}") from exc
    media_type = _media_type(document, content_type.partition(";")[0].strip().lower())
    is_index = media_type in INDEX_TYPES
    problem = _index_problem(document) if is_index else _image_problem(document)
    if document.schema_version != 2:
        problem = f"schemaVersion is {document.schema_version}, not 2"
    if problem:
        raise InvalidRequestError(f"manifest invalid: {problem}")
    config_type = document.config.media_type if document.config else ""
    return Manifest(
        media_type=media_type,
        config=document.config,
        layers=tuple(document.layers or ()),
        children=tuple(document.manifests or ()),
        subject=document.subject.digest if document.subject else None,
        artifact_type=document.artifact_type or config_type,
        annotations=document.annotations or {},
    )


def _media_type(document: _Document, claimed: str) -> str:
    own = document.media_type or ""
    if claimed and own and claimed != own:
        raise InvalidRequestError(
            f"manifest invalid: mediaType is {own}, but Content-Type is {claimed}"
        )
    media_type = claimed or own
    if not media_type:
        media_type = OCI_MANIFEST if document.manifests is None else OCI_INDEX
    if media_type not in MANIFEST_TYPES | INDEX_TYPES:
        raise InvalidRequestError(f"manifest invalid: media type {media_type} is not taken")
    return media_type


def _index_problem(document: _Document) -> str:
    # A document that is both could be read as either (CVE-2021-41190).
    if document.config is not None or document.layers is not None:
        return "an index has no config and no layers"
    return "manifests is missing" if document.manifests is None else ""


def _image_problem(document: _Document) -> str:
    if document.manifests is not None:
        return "an image manifest has no manifests"
    if document.config is None:
        return "config is missing"
    if document.layers is None:
        return "layers is missing"
    if len(document.layers) > MOST_LAYERS:
        return f"{len(document.layers)} layers; at most {MOST_LAYERS} are taken"
    return ""


def for_platform(index: Manifest, architecture: str, system: str = "linux") -> Digest | None:
    """The child for a platform; an only child that names no platform will do."""
    same = [
        child
        for child in index.children
        if child.platform is not None
        and (child.platform.os, child.platform.architecture) == (system, architecture)
    ]
    plain = [child for child in same if child.platform and not child.platform.variant]
    for child in (*plain, *same):
        return Digest(child.digest)
    if len(index.children) == 1 and index.children[0].platform is None:
        return Digest(index.children[0].digest)
    return None


def diff_ids(config: dict[str, Any]) -> list[str]:
    """Digests of the unpacked layers that an image's config names, base first; none if it names none."""
    rootfs = config.get("rootfs")
    return list(rootfs.get("diff_ids") or ()) if isinstance(rootfs, dict) else []


def layer_refs(manifest: Manifest, diff_ids: list[str]) -> tuple[LayerRef, ...]:
    """Layers with their diff ids, base first. Raises InvalidRequestError if the counts differ."""
    if len(diff_ids) != len(manifest.layers):
        raise InvalidRequestError(
            f"the image has {len(manifest.layers)} layers, but its config names {len(diff_ids)}"
        )
    return tuple(
        LayerRef(
            digest=Digest(layer.digest),
            diff_id=Digest(diff_id),
            media_type=layer.media_type,
            size_bytes=layer.size,
        )
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
