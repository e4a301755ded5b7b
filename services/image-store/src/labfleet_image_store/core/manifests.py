"""Manifests and indexes: OCI image-spec 1.1 and Docker's schema 2, parsed and checked."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from labfleet_image_store.core.registry_errors import manifest_invalid, unsupported
from labfleet_proto.ids import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGE_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIG_TYPES = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
MANIFEST_BYTES = 4 << 20
LAYER_BYTES = 8 << 30
MOST_LAYERS = 127
CONFIG_BYTES = 900 << 10
"""A config rides the bus, whose messages hold 1 MiB."""

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.",
    "application/vnd.oci.image.layer.nondistributable.",
)

_DigestText = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
_MediaType = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class _Loose(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Platform(_Loose):
    """What machine a child of an index is for."""

    architecture: str = ""
    os: str = ""


class Descriptor(_Loose):
    """A reference to content, in the specification's own field names."""

    mediaType: _MediaType  # noqa: N815 - the specification's name
    digest: _DigestText
    size: Annotated[int, Field(ge=0)]
    platform: Platform | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether the content may lie elsewhere, so that it need not exist here."""
        return self.mediaType.startswith(_FOREIGN)


class _Document(_Loose):
    schemaVersion: int  # noqa: N815
    mediaType: str | None = None  # noqa: N815
    artifactType: str | None = None  # noqa: N815
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None
    fsLayers: list[Any] | None = None  # noqa: N815 - only schema 1 has it


@dataclass(frozen=True)
class Manifest:
    """A valid manifest (`config` set) or index (`children`)."""

    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: dict[str, str]

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests."""
        return self.media_type in INDEX_TYPES

    @property
    def is_image(self) -> bool:
        """Whether it is one platform's container image, not another artifact."""
        return self.config is not None and self.config.mediaType in CONFIG_TYPES

    def blobs(self) -> tuple[Descriptor, ...]:
        """The blobs that must exist in the repository."""
        config = () if self.config is None else (self.config,)
        return config + tuple(layer for layer in self.layers if not layer.is_foreign)

    def referrer_type(self) -> str:
        """The `artifactType` of its descriptor in a list of referrers (distribution-spec)."""
        if self.artifact_type or self.config is None:
            return self.artifact_type
        return self.config.mediaType


def parse_manifest(body: bytes, content_type: str = "") -> Manifest:
    """Parse and check a manifest; `content_type` is what the client called it, if anything.

    Raises RegistryError MANIFEST_INVALID naming the rule that is broken.
    """
    try:
        document = _Document.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise manifest_invalid(f"{place}: {first['msg']}") from exc
    media_type = _media_type(document, content_type.partition(";")[0].strip().lower())
    if document.schemaVersion != 2:
        raise manifest_invalid(f"schemaVersion is {document.schemaVersion}, not 2")
    problem = _index_problem(document) if media_type in INDEX_TYPES else _image_problem(document)
    if problem:
        raise manifest_invalid(problem)
    return Manifest(
        media_type=media_type,
        config=document.config,
        layers=tuple(document.layers or ()),
        children=tuple(document.manifests or ()),
        subject=document.subject,
        artifact_type=document.artifactType or "",
        annotations=document.annotations or {},
    )


def _media_type(document: _Document, claimed: str) -> str:
    own = document.mediaType or ""
    if (claimed or own).startswith(_SCHEMA_1) or document.fsLayers is not None:
        raise unsupported("docker image manifest version 1 is not supported", 400)
    if claimed and own and claimed != own:
        raise manifest_invalid(f"mediaType is {own}, but Content-Type is {claimed}")
    media_type = claimed or own
    if not media_type:
        media_type = OCI_MANIFEST if document.manifests is None else OCI_INDEX
    if media_type not in IMAGE_TYPES | INDEX_TYPES:
        raise manifest_invalid(f"unknown media type {media_type}")
    return media_type


def _index_problem(document: _Document) -> str:
    # A document that is both could be read as either (CVE-2021-41190).
    if document.config is not None or document.layers is not None:
        return "an index has no config and no layers"
    if document.manifests is None:
        return "manifests is missing"
    return ""


def _image_problem(document: _Document) -> str:
    if document.manifests is not None:
        return "an image manifest has no manifests"
    if document.config is None:
        return "config is missing"
    if document.layers is None:
        return "layers is missing"
    if len(document.layers) > MOST_LAYERS:
        return f"{len(document.layers)} layers; at most {MOST_LAYERS} are taken"
    if any(layer.size > LAYER_BYTES for layer in document.layers):
        return f"a layer is larger than {LAYER_BYTES} bytes"
    if document.config.mediaType in CONFIG_TYPES and document.config.size > CONFIG_BYTES:
        return f"the image config is larger than {CONFIG_BYTES} bytes"
    return ""


def select_child(index: Manifest, os: str = "linux", architecture: str = "amd64") -> Digest | None:
    """Return the child for a platform; an only child that names no platform will do."""
    for child in index.children:
        wanted = child.platform
        if wanted is not None and (wanted.os, wanted.architecture) == (os, architecture):
            return Digest(child.digest)
    if len(index.children) == 1 and index.children[0].platform is None:
        return Digest(index.children[0].digest)
    return None


def accepts(header: str | None, media_type: str) -> bool:
    """Whether an `Accept` header takes `media_type`; no header takes everything."""
    if not header:
        return True
    wanted = {part.partition(";")[0].strip().lower() for part in header.split(",")}
    return bool(wanted & {media_type, "*/*", "application/*"})
