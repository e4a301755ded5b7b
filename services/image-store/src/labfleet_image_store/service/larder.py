"""What was fetched from upstreams, kept for the next who asks and for when no upstream answers.

Its repositories belong to no tenant (`FETCHED`). Who pulls gets references of his own to what is here,
so that a removal, here or there, takes nothing from anybody.
"""

import asyncio

from labfleet_chassis.caller import acting_for
from labfleet_chassis.clock import Clock
from labfleet_chassis.logs import Log
from labfleet_image_store.adapters.upstream_client import RemoteManifest
from labfleet_image_store.core.upstreams import Route
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_proto.buckets import manifest_key, tag_key
from labfleet_proto.errors import NotFoundError
from labfleet_proto.ids import Digest
from labfleet_proto.images import FETCHED, ManifestRecord, TagRecord, own_repository, owner_of

_NS_PER_S = 1_000_000_000
_RENEW_AFTER_S = 3600.0
_PASS_EVERY_S = 600.0


class Larder:
    """Manifests and tags of upstreams."""

    def __init__(self, catalogue: Catalogue, clock: Clock, log: Log) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._log = log

    def repository(self, route: Route, path: str) -> str:
        """Where a repository of an upstream is kept."""
        return own_repository(FETCHED, f"{route.key}/{path}")

    def tag(self, repository: str, tag: str) -> TagRecord | None:
        """What a tag pointed to when it was last asked for."""
        return self._catalogue.tags.get(tag_key(repository, tag))

    def is_fresh(self, record: TagRecord, route: Route) -> bool:
        """Whether it need not be asked for again."""
        age_ns = self._clock.now_ns() - record.checked_at_ns
        return 0 <= age_ns < route.expiry_s * _NS_PER_S

    def manifest(self, repository: str, digest: str) -> ManifestRecord | None:
        """A manifest that is here, bytes and record."""
        record = self._catalogue.manifests.get(manifest_key(repository, Digest(digest)))
        is_here = record is not None and self._catalogue.files.path_of(digest).exists()
        return record if is_here else None

    async def keep(self, repository: str, found: RemoteManifest) -> ManifestRecord:
        """Store a manifest; what it refers to need not be here. Again is nothing."""
        await asyncio.to_thread(self._catalogue.files.put, repository, found.body)
        record = ManifestRecord(
            repository=repository,
            digest=found.digest,
            media_type=found.parsed.media_type,
            size_bytes=len(found.body),
            pushed_by=FETCHED,
            pushed_at_ns=self._clock.now_ns(),
        )
        key = manifest_key(repository, found.digest)
        revision = await self._catalogue.manifests.bucket.put(key, record)
        await self._catalogue.manifests.wait_for(revision)
        return record

    async def restore(self, repository: str, found: RemoteManifest) -> None:
        """Bring the bytes of a manifest again; its record stays as it is."""
        await asyncio.to_thread(self._catalogue.files.put, repository, found.body)

    def tags(self) -> list[TagRecord]:
        """All tags, of everybody."""
        return self._catalogue.tags.values()

    async def point(self, repository: str, tag: str, digest: Digest, registry: str) -> None:
        """Remember what an upstream has just said of a tag."""
        now_ns = self._clock.now_ns()
        await self._put_tag(
            TagRecord(
                repository=repository,
                tag=tag,
                manifest_digest=digest,
                updated_at_ns=now_ns,
                upstream=registry,
                checked_at_ns=now_ns,
            )
        )

    async def used(self, record: ManifestRecord, tag: TagRecord | None) -> None:
        """Keep something longer, as somebody asked for it."""
        now_ns = self._clock.now_ns()
        oldest_ns = now_ns - int(_RENEW_AFTER_S * _NS_PER_S)
        if tag is not None and tag.updated_at_ns < oldest_ns:
            await self._put_tag(tag.model_copy(update={"updated_at_ns": now_ns}))
        if record.pushed_at_ns < oldest_ns:
            key = manifest_key(record.repository, record.digest)
            newer = record.model_copy(update={"pushed_at_ns": now_ns})
            await self._catalogue.manifests.bucket.put(key, newer)

    async def _put_tag(self, record: TagRecord) -> None:
        key = tag_key(record.repository, record.tag)
        revision = await self._catalogue.tags.bucket.put(key, record)
        await self._catalogue.tags.wait_for(revision)

    def has_fetched(self, route: Route, digest: str) -> str | None:
        """A repository of the same route and login that has a blob; None if there is none. Blocks."""
        prefix = own_repository(FETCHED, f"{route.key}/")
        return self._catalogue.files.any_with(prefix, digest)

    # -- letting go

    async def run(self, keep_s: float) -> None:
        """Let go, for ever, of what nobody has asked for in so long; its blobs stay for the collector."""
        while True:
            await asyncio.sleep(_PASS_EVERY_S)
            await self.sweep(keep_s)

    async def sweep(self, keep_s: float) -> None:
        """One pass."""
        oldest_ns = self._clock.now_ns() - int(keep_s * _NS_PER_S)
        catalogue = self._catalogue
        with acting_for(FETCHED):
            for tag in catalogue.tags.values():
                if owner_of(tag.repository) == FETCHED and tag.updated_at_ns < oldest_ns:
                    await catalogue.untag(tag.repository, tag.tag)
            needed = {
                (tag.repository, digest)
                for tag in catalogue.tags.values()
                if owner_of(tag.repository) == FETCHED
                for digest in self._below(tag.manifest_digest)
            }
            for record in catalogue.manifests.values():
                is_old = owner_of(record.repository) == FETCHED and record.pushed_at_ns < oldest_ns
                if is_old and (record.repository, record.digest) not in needed:
                    await catalogue.drop_manifest(record.repository, record.digest)
                    self._log.info("larder.left", repository=record.repository)

    def _below(self, digest: Digest) -> list[str]:
        try:
            children = self._catalogue.manifest(digest).children
        except NotFoundError:  # damaged, and not healed yet
            children = ()
        return [digest, *(child.digest for child in children)]
