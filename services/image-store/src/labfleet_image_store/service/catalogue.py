"""What exists: tags and manifests in the fleet's memory, their bytes in files."""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from labfleet_chassis.caller import caller_tenant
from labfleet_chassis.clock import Clock
from labfleet_chassis.mirror import Mirror
from labfleet_chassis.store import ExistsError
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.core import manifests, references
from labfleet_image_store.core.manifests import INDEX_TYPES, Manifest
from labfleet_image_store.service.tenant_rules import TenantRules
from labfleet_proto.buckets import manifest_key, tag_key
from labfleet_proto.errors import DigestMismatchError, LabfleetError, NotFoundError
from labfleet_proto.ids import Digest, TenantId
from labfleet_proto.images import (
    ManifestRecord,
    TagRecord,
    familiar_repository,
    is_unnamed,
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
        rules: TenantRules,
    ) -> None:
        self.files = files
        self.tags = tags
        self.manifests = stored
        self._clock = clock
        self.own_domains = own_domains
        self.sharing = rules.sharing
        self.quotas = rules.quotas
        self._parsed: dict[str, Manifest] = {}
        self._configs: dict[str, dict[str, Any]] = {}

    # -- manifests and tags

    def manifest(self, digest: str) -> Manifest:
        """Parse a stored manifest. Raises NotFoundError."""
        if digest not in self._parsed:
            data = self.files.read(digest, manifests.MOST_BYTES)
            self._parsed[digest] = manifests.parse(data, "")
        return self._parsed[digest]

    def forget(self, digest: str) -> None:
        """A blob is gone."""
        self._parsed.pop(digest, None)
        self._configs.pop(digest, None)

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
        Raises InvalidRequestError, DigestMismatchError, QuotaExceededError, NotFoundError when a blob of
        it is not in the repository.
        """
        manifest = manifests.parse(data, content_type)
        places = self.readable_as(owner_of(repository), familiar_repository(repository))
        missing = await asyncio.to_thread(self._borrow, repository, places, manifest.blobs)
        if missing is not None:
            raise NotFoundError(f"blob {missing} is not in {familiar_repository(repository)}")
        for child in manifest.children:
            if self.manifests.get(manifest_key(repository, Digest(child.digest))) is None:
                raise NotFoundError(
                    f"manifest {child.digest} is not in {familiar_repository(repository)}"
                )
        if references.is_digest(reference):
            have = f"sha256:{hashlib.sha256(data).hexdigest()}"
            if have != reference:
                raise DigestMismatchError(f"digest invalid: the bytes are {have}, not {reference}")
        own = f"sha256:{hashlib.sha256(data).hexdigest()}"
        async with self.quotas.turn(repository):
            self.quotas.check(repository, {own: len(data), **dict.fromkeys(manifest.blobs)})
            digest = await asyncio.to_thread(self.files.put, repository, data)
            record = ManifestRecord(
                repository=repository,
                digest=digest,
                media_type=manifest.media_type,
                size_bytes=len(data),
                pushed_by=caller_tenant(),
                pushed_at_ns=self._clock.now_ns(),
            )
            try:
                revision = await self.manifests.bucket.create(
                    manifest_key(repository, digest), record
                )
                await self.manifests.wait_for(revision)
            except ExistsError:
                self._parsed.setdefault(digest, manifest)  # pushed before: the same bytes
        if not references.is_digest(reference):
            await self.tag(repository, reference, digest)
        return digest, manifest

    def _borrow(self, repository: str, places: Sequence[str], blobs: Iterable[str]) -> str | None:
        """Let a repository refer to blobs that it or one of `places` has; the first that none has. Blocks."""
        for blob in blobs:
            if self.files.renew(repository, blob):
                continue
            if not any(self.files.has(place, blob) for place in places):
                return blob
            self.files.link(repository, blob)
        return None

    async def tag(self, repository: str, tag: str, digest: Digest, *, upstream: str = "") -> None:
        """Point a tag at a manifest; `upstream` is the registry that says so, empty for our own people."""
        record = TagRecord(
            repository=repository,
            tag=tag,
            manifest_digest=digest,
            updated_at_ns=self._clock.now_ns(),
            upstream=upstream,
            checked_at_ns=self._clock.now_ns() if upstream else 0,
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
        """Remove a manifest and the tags that point to it; its blobs stay for the collector, and for a while.

        Who found the image just before, for a container, has that while to say that he needs it.
        """
        for record in self.tags.values():
            if record.repository == repository and record.manifest_digest == digest:
                await self.untag(repository, record.tag)
        await asyncio.to_thread(self._keep_on, repository, digest)
        key = manifest_key(repository, digest)
        await self.manifests.bucket.delete(key)
        await self._until_gone(self.manifests, key)

    def _keep_on(self, repository: str, digest: Digest) -> None:
        needed: Iterable[str]
        try:
            needed = (digest, *self.manifest(digest).blobs)
        except LabfleetError:  # it is damaged, so that any blob may be of it
            needed = self.files.links.of(repository)
        self.files.keep_on(repository, needed)

    async def _until_gone(self, mirror: "Mirror[Any]", key: str) -> None:
        while key in mirror.entries:
            await mirror.changed()

    def tags_of(self, repositories: tuple[str, ...]) -> list[str]:
        """Tags of some repositories, sorted. Raises NotFoundError when all are unknown.

        A repository that has lost its last manifest is known while it has blobs.
        """
        is_known = any(record.repository in repositories for record in self.manifests.values())
        if not is_known and not any(self.files.links.knows(each) for each in repositories):
            raise NotFoundError(f"repository {familiar_repository(repositories[0])} is not known")
        return sorted({r.tag for r in self.tags.values() if r.repository in repositories})

    def repositories(self) -> list[str]:
        """Familiar names of the repositories that the caller may read, sorted."""
        names = {each.repository for each in self.visible() if not is_unnamed(each.repository)}
        return sorted({familiar_repository(name) for name in names})

    def referrers(
        self, repositories: tuple[str, ...], subject: str
    ) -> list[tuple[ManifestRecord, Manifest]]:
        """Manifests of some repositories whose subject is the digest, each once."""
        found = {}
        for record in self.manifests.values():
            if record.repository in repositories:
                try:
                    manifest = self.manifest(record.digest)
                except NotFoundError:
                    continue  # damaged, and not healed yet
                if manifest.subject == subject:
                    found[record.digest] = (record, manifest)
        return [found[digest] for digest in sorted(found)]

    # -- images

    def platform_of(self, repository: str, digest: str) -> str | None:
        """Digest of the manifest for this fleet's architecture."""
        manifest = self.manifest(digest)
        if manifest.media_type not in INDEX_TYPES:
            return digest
        child = manifests.for_platform(manifest, _ARCHITECTURE)
        return child if child and self.files.has(repository, child) else None

    def config_of(self, digest: str) -> dict[str, Any]:
        """The config document of an image. Raises NotFoundError."""
        if digest not in self._configs:
            self._configs[digest] = json.loads(self.files.read(digest, _MOST_CONFIG_BYTES))
        return self._configs[digest]

    def image_of(self, record: ManifestRecord) -> tuple[str, str] | None:
        """Image id (config digest) and manifest digest; None if it is no image for us, or damaged."""
        try:
            digest = self.platform_of(record.repository, record.digest)
            if digest is None:
                return None
            manifest = self.manifest(digest)
        except NotFoundError:
            return None
        if manifest.config is None or not manifest.config.media_type.endswith(
            ("image.config.v1+json", "container.image.v1+json")
        ):
            return None
        return (manifest.config.digest, digest) if self._is_sound(manifest) else None

    def _is_sound(self, manifest: Manifest) -> bool:
        """Whether the config can be read and names the layers: whoever pushes may push anything."""
        if manifest.config is None:
            return False
        try:
            manifests.layer_refs(
                manifest, manifests.diff_ids(self.config_of(manifest.config.digest))
            )
        except (LabfleetError, ValueError, TypeError, AttributeError, RecursionError):
            return False
        return True

    def visible(self) -> list[ManifestRecord]:
        """Manifests that the caller may see, its own first."""
        tenant = caller_tenant()
        every = [
            each
            for each in self.manifests.values()
            if self.sharing.may_read(tenant, each.repository)
        ]
        return sorted(every, key=lambda each: owner_of(each.repository) != tenant)

    def readable_as(self, tenant: TenantId, name: str) -> tuple[str, ...]:
        """The repositories that a name may mean to a tenant when reading, best first."""
        return readable_as(tenant, name, self.sharing.is_shared)

    def first_of(self, repositories: tuple[str, ...], reference: str) -> ManifestRecord:
        """Find a manifest in the first repository that has it. Raises NotFoundError."""
        *others, last = repositories
        for repository in others:
            try:
                return self.record(repository, reference)
            except NotFoundError:
                continue
        return self.record(last, reference)

    def _below(self, record: ManifestRecord, manifest: Manifest) -> dict[str, int | None]:
        """A manifest and all that a copy of it refers to."""
        found = self.quotas.below(record.repository, record.digest)
        for child in manifest.children:
            if manifest_key(record.repository, Digest(child.digest)) in self.manifests.entries:
                found |= self.quotas.below(record.repository, Digest(child.digest))
        return found

    async def copy(self, record: ManifestRecord, repository: str) -> None:
        """Refer to a manifest, and to all below it that its repository refers to, from one more repository.

        Of an index that was fetched not all is there, and a name in it is no leave to read a blob.
        Raises QuotaExceededError.
        """
        async with self.quotas.turn(repository):
            self.quotas.check(repository, self._below(record, self.manifest(record.digest)))
            await self._copy(record, repository)

    async def _copy(self, record: ManifestRecord, repository: str) -> None:
        manifest = self.manifest(record.digest)
        for child in manifest.children:
            below = self.manifests.get(manifest_key(record.repository, Digest(child.digest)))
            if below is not None:
                await self._copy(below, repository)
        await asyncio.to_thread(self._refer, record, manifest.blobs, repository)
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

    def _refer(self, record: ManifestRecord, blobs: Iterable[str], repository: str) -> None:
        for blob in blobs:
            if self.files.links.refers(record.repository, blob):
                self.files.link(repository, blob)
        self.files.link(repository, record.digest)
