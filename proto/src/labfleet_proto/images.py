"""Images: what the image-store knows and others ask it."""

from collections.abc import Callable

from pydantic import JsonValue

from labfleet_proto.ids import OPERATORS, Digest, TenantId
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message, Nothing


def own_repository(tenant: TenantId, name: str) -> str:
    """The repository that a tenant means by a name; no client can write one that begins with `_`."""
    return name if tenant == OPERATORS else f"_{tenant}/{name}"


def familiar_repository(repository: str) -> str:
    """A repository's name as its owner wrote it."""
    return repository.partition("/")[2] if repository.startswith("_") else repository


def owner_of(repository: str) -> TenantId:
    """Whose repository it is."""
    return TenantId(repository[1:].partition("/")[0]) if repository.startswith("_") else OPERATORS


FETCHED = TenantId(".fetched")
"""Owner, no tenant's name, of what was fetched from upstreams: the store keeps it for the next who asks."""


_UNNAMED = "_none"


def unnamed_repository(tenant: TenantId) -> str:
    """Where a tenant's images without any name are kept; nobody can write this name."""
    return f"_{tenant}/{_UNNAMED}"


def is_unnamed(repository: str) -> bool:
    """Whether it is the place of images without a name."""
    return repository.startswith("_") and repository.partition("/")[2] == _UNNAMED


def readable_as(tenant: TenantId, name: str, is_shared: Callable[[str], bool]) -> tuple[str, ...]:
    """The repositories that a name may mean to a tenant when reading, best first.

    `is_shared` says which of the operators' are everybody's.
    """
    own = own_repository(tenant, name)
    return (own, name) if own != name and is_shared(name) else (own,)


class LayerRef(Message):
    """One layer of an image, base first in every list."""

    digest: Digest
    """Of the compressed blob, as stored."""
    diff_id: Digest
    """Of the uncompressed tar (OCI image-spec)."""
    media_type: str
    size_bytes: int


class ImagePin(Message):
    """An image as a container uses it: immutable, whatever its tags do later."""

    reference: str
    """As the user wrote it."""
    image_id: Digest
    """Digest of the config blob: docker's image id."""
    repository: str
    """The store's own name of a repository through which the blobs can be read (`own_repository`)."""
    manifest_digest: Digest
    layers: tuple[LayerRef, ...]


class ImageDetail(Message):
    """One image with its config."""

    pin: ImagePin
    config: dict[str, JsonValue]
    """The OCI image config document."""
    tags: tuple[str, ...]
    """Familiar references such as `busybox:latest`."""
    digests: tuple[str, ...]
    """Familiar references by digest such as `busybox@sha256:...`."""
    size_bytes: int
    """Uncompressed where known, else the sum of the stored layers."""
    layer_bytes: tuple[int, ...] = ()
    """Of each layer, base first, likewise."""
    manifest_bytes: int = 0
    manifest_type: str = ""
    tagged_at_ns: int = 0
    """When it last got a name; 0 if it has none."""


class ImageSummary(Message):
    """A row of `docker images`."""

    image_id: Digest
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    created_at_s: int
    size_bytes: int
    labels: dict[str, str]
    shared_bytes: int = 0
    """Of layers that other images have, too."""
    is_own: bool = True
    """Not only shared by the operators."""
    created_at_ns: int = 0
    """As `created_at_s`, with the fraction: filters compare images of the same second."""


class ImageQuery(Message):
    """A reference (name, name:tag, name@digest) or an image id or a unique prefix of one."""

    reference: str


class ImageList(Message):
    """All images the tenant sees."""

    images: tuple[ImageSummary, ...]
    layers_bytes: int = 0
    """Of all their layers, each once."""


class TagImage(Message):
    """Give the image `source` one more name."""

    source: str
    target: str


class RemoveImage(Message):
    """Remove a name, or with an id the whole image."""

    reference: str
    force: bool = False
    running_user: str = ""
    """Short id of a running container of the image."""
    stopped_user: str = ""
    """Short id of one that does not run."""


class ImageRemoved(Message):
    """What was removed, in docker's words."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    """The image's id, then chain ids of layers that no other image has."""
    image_id: Digest = Digest("")
    freed_bytes: int = 0


class TagRecord(Message):
    """Value of the `tags` bucket: what a name points to."""

    repository: str
    tag: str
    manifest_digest: Digest
    updated_at_ns: int
    upstream: str = ""
    """Registry that it was pulled from; empty if the fleet's own people gave the name."""
    checked_at_ns: int = 0
    """When an upstream last said so."""


class ManifestRecord(Message):
    """Value of the `manifests` bucket: one manifest in one repository."""

    repository: str
    digest: Digest
    media_type: str
    size_bytes: int
    pushed_by: TenantId
    pushed_at_ns: int


class TenantStorage(Message):
    """What counts for a tenant's quota."""

    tenant: TenantId
    stored_bytes: int
    repositories: int


class TenantsStorage(Message):
    """Of every tenant that has images, or blobs that are in no image yet."""

    tenants: tuple[TenantStorage, ...]


TENANTS_STORAGE = JobKind("tenants_storage", "image-store", Nothing, TenantsStorage)
RESOLVE_IMAGE = JobKind("resolve_image", "image-store", ImageQuery, ImageDetail)
"""Find one image. Raises NotFoundError ("No such image: ...") or ConflictError (ambiguous prefix)."""
LIST_IMAGES = JobKind("list_images", "image-store", Nothing, ImageList)
TAG_IMAGE = JobKind("tag_image", "image-store", TagImage, Nothing)
REMOVE_IMAGE = JobKind("remove_image", "image-store", RemoveImage, ImageRemoved)
