"""What exists: tags and manifests in the fleet's memory, their bytes in files."""

import json
from typing import Any

from labfleet_chassis.caller import caller_tenant
from labfleet_chassis.clock import Clock
from labfleet_chassis.store import ExistsError, Mirror
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.core import manifests, naming, references
from labfleet_image_store.core.manifests import INDEX_TYPES, Manifest
from labfleet_image_store.core.references import Reference
from labfleet_proto.buckets import manifest_key, tag_key
from labfleet_proto.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
)
from labfleet_proto.ids import Digest
from labfleet_proto.images import (
    ImageDetail,
    ImagePin,
    ImageRemoved,
    ImageSummary,
    ManifestRecord,
    TagRecord,
    familiar_repository,
    may_read,
    own_repository,
    owner_of,
    readable_as,
)

_MOST_CONFIG_BYTES = 900 << 10
_ARCHITECTURE = "amd64"


class Catalogue:
    """Images by name, digest and id, as the caller's tenant sees them (`labfleet_chassis.caller`).

    Repositories are the store's own names; `ImageDetail`, `ImageSummary` and errors show familiar ones.
    """

    def __init__(
        self,
        files: BlobFiles,
        tags: Mirror[TagRecord],
        stored: Mirror[ManifestRecord],
        clock: Clock,
        own_domains: frozenset[str],
    ) -> None:
        self.files = files
        self.tags = tags
        self.manifests = stored
        self._clock = clock
        self._own = own_domains
        self._parsed: dict[str, Manifest] = {}
        self._configs: dict[str, dict[str, Any]] = {}

    # -- manifests and tags

    def manifest(self, digest: str) -> Manifest:
        """Parse a stored manifest. Raises NotFoundError."""
        if digest not in self._parsed:
            data = self.files.read(digest, manifests.MOST_BYTES)
            self._parsed[digest] = manifests.parse(data, "")
        return self._parsed[digest]

    def record(self, repository: str, reference: str) -> ManifestRecord:
        """Find a manifest by tag or digest. Raises NotFoundError."""
        digest = reference
        if not references.is_digest(reference):
            tag = self.tags.get(tag_key(repository, reference))
            if tag is None:
                raise NotFoundError(f"{familiar_repository(repository)}:{reference} is not known")
            digest = tag.manifest_digest
        found = self.manifests.get(manifest_key(repository, Digest(digest)))
        if found is None:
            raise NotFoundError(f"{familiar_repository(repository)}@{digest} is not known")
        return found

    async def put_manifest(
        self, repository: str, reference: str, data: bytes, content_type: str
    ) -> tuple[Digest, Manifest]:
        """Store a manifest, and its tag if `reference` is one.

        Blobs that the caller may read under the same name from a shared repository are referred to.
        Raises InvalidRequestError, NotFoundError when a blob of it is not in the repository.
        """
        manifest = manifests.parse(data, content_type)
        for blob in manifest.blobs:
            if not self._borrow(repository, blob):
                raise NotFoundError(f"blob {blob} is not in {familiar_repository(repository)}")
        for child in manifest.children:
            if self.manifests.get(manifest_key(repository, Digest(child.digest))) is None:
                raise NotFoundError(
                    f"manifest {child.digest} is not in {familiar_repository(repository)}"
                )
        digest = self.files.put(repository, data)
        if references.is_digest(reference) and reference != digest:
            self.files.unlink(repository, digest)
            raise InvalidRequestError(f"digest invalid: the bytes are {digest}, not {reference}")
        record = ManifestRecord(
            repository=repository,
            digest=digest,
            media_type=manifest.media_type,
            size_bytes=len(data),
            pushed_by=caller_tenant(),
            pushed_at_ns=self._clock.now_ns(),
        )
        try:
            revision = await self.manifests.bucket.create(manifest_key(repository, digest), record)
            await self.manifests.wait_for(revision)
        except ExistsError:
            self._parsed.setdefault(digest, manifest)  # pushed before: the same bytes
        if not references.is_digest(reference):
            await self.tag(repository, reference, digest)
        return digest, manifest

    def _borrow(self, repository: str, blob: str) -> bool:
        """Whether the repository refers to the blob, now."""
        name = familiar_repository(repository)
        for source in readable_as(owner_of(repository), name):
            if self.files.has(source, blob):
                if source != repository:
                    self.files.link(repository, blob)
                return True
        return False

    async def tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Point a tag at a manifest."""
        record = TagRecord(
            repository=repository,
            tag=tag,
            manifest_digest=digest,
            updated_at_ns=self._clock.now_ns(),
        )
        revision = await self.tags.bucket.put(tag_key(repository, tag), record)
        await self.tags.wait_for(revision)

    async def untag(self, repository: str, tag: str) -> None:
        """Remove a tag. Raises NotFoundError."""
        key = tag_key(repository, tag)
        if self.tags.get(key) is None:
            raise NotFoundError(f"{familiar_repository(repository)}:{tag} is not known")
        await self.tags.bucket.delete(key)
        await self._until_gone(self.tags, key)

    async def drop_manifest(self, repository: str, digest: Digest) -> None:
        """Remove a manifest and the tags that point to it; its blobs stay for the collector."""
        for record in self.tags.values():
            if record.repository == repository and record.manifest_digest == digest:
                await self.untag(repository, record.tag)
        key = manifest_key(repository, digest)
        await self.manifests.bucket.delete(key)
        await self._until_gone(self.manifests, key)

    async def _until_gone(self, mirror: "Mirror[Any]", key: str) -> None:
        while key in mirror.entries:
            await mirror.changed()

    def tags_of(self, repositories: tuple[str, ...]) -> list[str]:
        """Tags of some repositories, sorted. Raises NotFoundError when all are unknown."""
        if not any(record.repository in repositories for record in self.manifests.values()):
            raise NotFoundError(f"repository {familiar_repository(repositories[0])} is not known")
        return sorted({r.tag for r in self.tags.values() if r.repository in repositories})

    def repositories(self) -> list[str]:
        """Familiar names of the repositories that the caller may read, sorted."""
        return sorted({familiar_repository(each.repository) for each in self._visible()})

    def referrers(
        self, repositories: tuple[str, ...], subject: str
    ) -> list[tuple[ManifestRecord, Manifest]]:
        """Manifests of some repositories whose subject is the digest, each once."""
        found = {}
        for record in self.manifests.values():
            if record.repository in repositories:
                manifest = self.manifest(record.digest)
                if manifest.subject == subject:
                    found[record.digest] = (record, manifest)
        return [found[digest] for digest in sorted(found)]

    # -- images

    def _platform(self, repository: str, digest: str) -> str | None:
        """Digest of the manifest for this fleet's architecture."""
        manifest = self.manifest(digest)
        if manifest.media_type not in INDEX_TYPES:
            return digest
        child = manifests.for_platform(manifest, _ARCHITECTURE)
        return child if child and self.files.has(repository, child) else None

    def _config(self, digest: str) -> dict[str, Any]:
        if digest not in self._configs:
            self._configs[digest] = json.loads(self.files.read(digest, _MOST_CONFIG_BYTES))
        return self._configs[digest]

    def _image_of(self, record: ManifestRecord) -> tuple[str, str] | None:
        """Image id (config digest) and manifest digest; None if it is no image for us."""
        digest = self._platform(record.repository, record.digest)
        if digest is None:
            return None
        manifest = self.manifest(digest)
        if manifest.config is None or not manifest.config.media_type.endswith(
            ("image.config.v1+json", "container.image.v1+json")
        ):
            return None
        return manifest.config.digest, digest

    def _visible(self) -> list[ManifestRecord]:
        """Manifests that the caller may see, its own first."""
        tenant = caller_tenant()
        every = [each for each in self.manifests.values() if may_read(tenant, each.repository)]
        return sorted(every, key=lambda each: owner_of(each.repository) != tenant)

    def first_of(self, repositories: tuple[str, ...], reference: str) -> ManifestRecord:
        """Find a manifest in the first repository that has it. Raises NotFoundError."""
        *others, last = repositories
        for repository in others:
            try:
                return self.record(repository, reference)
            except NotFoundError:
                continue
        return self.record(last, reference)

    def images(self) -> dict[str, list[ManifestRecord]]:
        """Image ids that the caller sees, with the manifests that lead to them, its own first."""
        found: dict[str, list[ManifestRecord]] = {}
        for record in self._visible():
            image = self._image_of(record)
            if image is not None:
                found.setdefault(image[0], []).append(record)
        return found

    def find(self, text: str) -> tuple[str, list[ManifestRecord], Reference | None]:
        """Find an image by reference, id or unique prefix of an id.

        Returns its id, its manifests, and the reference if it was found by one. Raises NotFoundError,
        ConflictError (ambiguous), InvalidRequestError (malformed).
        """
        images = self.images()
        try:
            reference = references.parse(text, self._own)
            places = readable_as(caller_tenant(), reference.repository)
            record = self.first_of(places, reference.digest or reference.tag or "")
            image = self._image_of(record)
            if image is not None:
                return image[0], [record], reference
        except (NotFoundError, InvalidRequestError) as exc:
            prefix = references.id_prefix(text)
            if prefix is None:
                if isinstance(exc, InvalidRequestError):
                    raise
                raise self._missing(text) from exc
        prefix = references.id_prefix(text) or ""
        hits = [key for key in images if prefix and key.startswith(f"sha256:{prefix}")]
        if len(hits) > 1:
            raise ConflictError(f"ambiguous image id prefix: {text}")
        if not hits:
            raise self._missing(text)
        return hits[0], images[hits[0]], None

    def _missing(self, text: str) -> NotFoundError:
        try:
            shown = references.parse(text, self._own).familiar
        except InvalidRequestError:
            shown = text
        return NotFoundError(f"No such image: {shown}")

    def detail(self, text: str) -> ImageDetail:
        """Describe one image. Raises as `find`."""
        image_id, records, reference = self.find(text)
        record = records[0]
        digest = self._platform(record.repository, record.digest) or record.digest
        manifest = self.manifest(digest)
        config = self._config(image_id)
        diff_ids = list(config.get("rootfs", {}).get("diff_ids", []))
        every = self.images()[image_id]
        pin = ImagePin(
            reference=reference.familiar if reference else text,
            image_id=Digest(image_id),
            repository=record.repository,
            manifest_digest=Digest(digest),
            layers=manifests.layer_refs(manifest, diff_ids),
        )
        return ImageDetail(
            pin=pin,
            config=config,
            tags=self._names(every),
            digests=naming.digests(every),
            size_bytes=sum(layer.size for layer in manifest.layers),
        )

    def _names(self, records: list[ManifestRecord]) -> tuple[str, ...]:
        """Names of an image; a shared name that the caller gave to an image of its own is that one's."""
        wanted = {(each.repository, each.digest) for each in records}
        tenant = caller_tenant()
        names = set()
        for tag in self.tags.values():
            if (tag.repository, tag.manifest_digest) in wanted:
                name = familiar_repository(tag.repository)
                own = own_repository(tenant, name)
                if tag.repository == own or self.tags.get(tag_key(own, tag.tag)) is None:
                    names.add(f"{name}:{tag.tag}")
        return tuple(sorted(names))

    def summaries(self) -> tuple[ImageSummary, ...]:
        """Rows of `docker images`, newest first."""
        rows = []
        for image_id, records in self.images().items():
            config = self._config(image_id)
            digest = self._platform(records[0].repository, records[0].digest) or records[0].digest
            rows.append(
                ImageSummary(
                    image_id=Digest(image_id),
                    tags=self._names(records),
                    digests=naming.digests(records),
                    created_at_s=naming.seconds(str(config.get("created", ""))),
                    size_bytes=sum(layer.size for layer in self.manifest(digest).layers),
                    labels=dict(config.get("config", {}).get("Labels") or {}),
                )
            )
        return tuple(sorted(rows, key=lambda row: -row.created_at_s))

    async def add_name(self, source: str, target: str) -> None:
        """Give an image one more name, maybe in another repository."""
        _, records, _ = self.find(source)
        reference = references.parse(target, self._own)
        if reference.digest is not None:
            raise InvalidRequestError("refusing to create a tag with a digest reference")
        record = records[0]
        target_repository = own_repository(caller_tenant(), reference.repository)
        if target_repository != record.repository:
            await self._copy(record, target_repository)
        await self.tag(target_repository, reference.tag or "latest", record.digest)

    async def _copy(self, record: ManifestRecord, repository: str) -> None:
        """Refer to a manifest and all below it from one more repository."""
        manifest = self.manifest(record.digest)
        for child in manifest.children:
            below = self.manifests.get(manifest_key(record.repository, Digest(child.digest)))
            if below is not None:
                await self._copy(below, repository)
        for blob in manifest.blobs:
            self.files.link(repository, blob)
        self.files.link(repository, record.digest)
        copy = record.model_copy(
            update={
                "repository": repository,
                "pushed_at_ns": self._clock.now_ns(),
                "pushed_by": caller_tenant(),
            }
        )
        key = manifest_key(repository, record.digest)
        revision = await self.manifests.bucket.put(key, copy)
        await self.manifests.wait_for(revision)

    async def remove(self, text: str, *, force: bool) -> ImageRemoved:
        """Remove a name, or by id the image.

        Raises NotFoundError, ConflictError, ForbiddenError (a shared image of the operators).
        """
        image_id, records, reference = self.find(text)
        tenant = caller_tenant()
        every = [each for each in self.images()[image_id] if owner_of(each.repository) == tenant]
        if not every or owner_of(records[0].repository) != tenant:
            raise ForbiddenError(
                f"image {text} is shared by the fleet's operators: it is read-only"
            )
        names = self._names(every)
        untagged: list[str] = []
        if reference is not None and reference.tag is not None and len(names) > 1:
            repository = records[0].repository
            await self.untag(repository, reference.tag)
            left = {(t.repository, t.manifest_digest) for t in self.tags.values()}
            if (repository, records[0].digest) not in left and any(
                (each.repository, each.digest) in left for each in every
            ):
                await self.drop_manifest(repository, records[0].digest)
            return ImageRemoved(untagged=(reference.familiar,), deleted=())
        if reference is None and len(names) > 1 and not force:
            raise ConflictError(
                f"conflict: unable to delete {image_id[7:19]} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        for record in every:
            untagged.append(f"{familiar_repository(record.repository)}@{record.digest}")
            await self.drop_manifest(record.repository, record.digest)
        is_gone = image_id not in self.images()  # else a shared one is still to be seen
        return ImageRemoved(untagged=(*names, *untagged), deleted=(image_id,) if is_gone else ())
