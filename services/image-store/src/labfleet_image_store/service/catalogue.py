"""What exists: tags and manifests in the fleet's memory, their bytes in files."""

import json
from datetime import datetime
from typing import Any

from labfleet_chassis.clock import Clock
from labfleet_chassis.store import ExistsError, Mirror
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.core import manifests, references
from labfleet_image_store.core.manifests import INDEX_TYPES, Manifest
from labfleet_image_store.core.references import Reference
from labfleet_proto.buckets import manifest_key, tag_key
from labfleet_proto.errors import ConflictError, InvalidRequestError, NotFoundError
from labfleet_proto.ids import OPERATORS, Digest
from labfleet_proto.images import (
    ImageDetail,
    ImagePin,
    ImageRemoved,
    ImageSummary,
    ManifestRecord,
    TagRecord,
)

_MOST_CONFIG_BYTES = 900 << 10
_ARCHITECTURE = "amd64"


class Catalogue:
    """Images by name, digest and id."""

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
                raise NotFoundError(f"{repository}:{reference} is not known")
            digest = tag.manifest_digest
        found = self.manifests.get(manifest_key(repository, Digest(digest)))
        if found is None:
            raise NotFoundError(f"{repository}@{digest} is not known")
        return found

    async def put_manifest(
        self, repository: str, reference: str, data: bytes, content_type: str
    ) -> tuple[Digest, Manifest]:
        """Store a manifest, and its tag if `reference` is one.

        Raises InvalidRequestError, NotFoundError when a blob of it is not in the repository.
        """
        manifest = manifests.parse(data, content_type)
        for blob in manifest.blobs:
            if not self.files.has(repository, blob):
                raise NotFoundError(f"blob {blob} is not in {repository}")
        for child in manifest.children:
            if self.manifests.get(manifest_key(repository, Digest(child.digest))) is None:
                raise NotFoundError(f"manifest {child.digest} is not in {repository}")
        digest = self.files.put(repository, data)
        if references.is_digest(reference) and reference != digest:
            self.files.unlink(repository, digest)
            raise InvalidRequestError(f"digest invalid: the bytes are {digest}, not {reference}")
        record = ManifestRecord(
            repository=repository,
            digest=digest,
            media_type=manifest.media_type,
            size_bytes=len(data),
            pushed_by=OPERATORS,
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
            raise NotFoundError(f"{repository}:{tag} is not known")
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

    def tags_of(self, repository: str) -> list[str]:
        """Tags of a repository, sorted. Raises NotFoundError when it is unknown."""
        if not any(record.repository == repository for record in self.manifests.values()):
            raise NotFoundError(f"repository {repository} is not known")
        return sorted(r.tag for r in self.tags.values() if r.repository == repository)

    def repositories(self) -> list[str]:
        """All repositories, sorted."""
        return sorted({record.repository for record in self.manifests.values()})

    def referrers(self, repository: str, subject: str) -> list[tuple[ManifestRecord, Manifest]]:
        """Manifests of the repository whose subject is the digest."""
        found = []
        for record in self.manifests.values():
            if record.repository == repository:
                manifest = self.manifest(record.digest)
                if manifest.subject == subject:
                    found.append((record, manifest))
        return sorted(found, key=lambda pair: pair[0].digest)

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

    def images(self) -> dict[str, list[ManifestRecord]]:
        """Image ids with the manifests that lead to them."""
        found: dict[str, list[ManifestRecord]] = {}
        for record in self.manifests.values():
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
            record = self.record(reference.repository, reference.digest or reference.tag or "")
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
            digests=tuple(sorted(f"{each.repository}@{each.digest}" for each in every)),
            size_bytes=sum(layer.size for layer in manifest.layers),
        )

    def _names(self, records: list[ManifestRecord]) -> tuple[str, ...]:
        wanted = {(each.repository, each.digest) for each in records}
        return tuple(
            sorted(
                f"{tag.repository}:{tag.tag}"
                for tag in self.tags.values()
                if (tag.repository, tag.manifest_digest) in wanted
            )
        )

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
                    digests=tuple(sorted(f"{r.repository}@{r.digest}" for r in records)),
                    created_at_s=_seconds(str(config.get("created", ""))),
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
        if reference.repository != record.repository:
            await self._copy(record, reference.repository)
        await self.tag(reference.repository, reference.tag or "latest", record.digest)

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
            update={"repository": repository, "pushed_at_ns": self._clock.now_ns()}
        )
        key = manifest_key(repository, record.digest)
        revision = await self.manifests.bucket.put(key, copy)
        await self.manifests.wait_for(revision)

    async def remove(self, text: str, *, force: bool) -> ImageRemoved:
        """Remove a name, or by id the image. Raises NotFoundError, ConflictError."""
        image_id, records, reference = self.find(text)
        every = self.images()[image_id]
        names = self._names(every)
        untagged: list[str] = []
        if reference is not None and reference.tag is not None and len(names) > 1:
            await self.untag(reference.repository, reference.tag)
            left = {(t.repository, t.manifest_digest) for t in self.tags.values()}
            if (reference.repository, records[0].digest) not in left and any(
                (each.repository, each.digest) in left for each in every
            ):
                await self.drop_manifest(reference.repository, records[0].digest)
            return ImageRemoved(untagged=(reference.familiar,), deleted=())
        if reference is None and len(names) > 1 and not force:
            raise ConflictError(
                f"conflict: unable to delete {image_id[7:19]} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        for record in every:
            untagged.append(f"{record.repository}@{record.digest}")
            await self.drop_manifest(record.repository, record.digest)
        return ImageRemoved(untagged=(*names, *untagged), deleted=(image_id,))


def _seconds(stamp: str) -> int:
    """Seconds since the epoch of an RFC 3339 time; 0 if there is none."""
    try:
        return int(datetime.fromisoformat(stamp[:19] + "+00:00").timestamp())
    except ValueError:
        return 0
