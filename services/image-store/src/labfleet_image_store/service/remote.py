"""Images of upstreams, through the larder: asked for again only when their time is over."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from labfleet_image_store.core import platforms, references
from labfleet_image_store.core import upstreams as core
from labfleet_image_store.core.manifests import Descriptor, Manifest
from labfleet_image_store.core.upstreams import Route
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_image_store.service.fetching import Fetcher, Tell
from labfleet_image_store.service.larder import Larder
from labfleet_image_store.service.upstreams import NoneHasItError, Upstreams
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.images import ManifestRecord, TagRecord
from labfleet_proto.upstreams import DescribeRemote, RemoteDescription, RemotePlatform

_MOST_CONFIG_BYTES = 900 << 10


class Remote:
    """What upstreams have, here as soon as it is asked for."""

    def __init__(
        self, catalogue: Catalogue, larder: Larder, upstreams: Upstreams, fetcher: Fetcher
    ) -> None:
        self._catalogue = catalogue
        self._larder = larder
        self._fetcher = fetcher
        self.upstreams = upstreams
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def _alone(self, repository: str, reference: str) -> AsyncIterator[None]:
        """One at a time asks for a manifest; who waited finds it here."""
        key = (repository, reference)
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)

    def repository(self, route: Route, path: str) -> str:
        """Where a repository of an upstream is kept."""
        return self._larder.repository(route, path)

    async def manifest(self, route: Route, path: str, reference: str) -> ManifestRecord:
        """A manifest in the larder. Raises NoneHasItError if none has it, nor had it."""
        repository = self._larder.repository(route, path)
        async with self._alone(repository, reference):
            if references.is_digest(reference):
                known = self._larder.manifest(repository, reference)
                tag = None
                if known is None:
                    known = await self._fetched(route, path, repository, reference)
            else:
                tag = self._larder.tag(repository, reference)
                known = await self._of_tag(route, path, reference, tag)
            await self._larder.used(known, tag)
            return known

    async def _of_tag(
        self, route: Route, path: str, name: str, tag: TagRecord | None
    ) -> ManifestRecord:
        repository = self._larder.repository(route, path)
        known = self._larder.manifest(repository, tag.manifest_digest) if tag else None
        if tag is not None and known is not None and self._larder.is_fresh(tag, route):
            return known
        try:
            if known is not None and await self._is_still(route, path, name, known):
                await self._larder.point(repository, name, known.digest, route.registry)
                return known
            found = await self._fetched(route, path, repository, name)
        except NoneHasItError as exc:
            if known is not None and exc.may_be_there:
                return known  # offline
            raise
        await self._larder.point(repository, name, found.digest, route.registry)
        return found

    async def _is_still(self, route: Route, path: str, name: str, known: ManifestRecord) -> bool:
        """Whether the tag points to what is known, without getting it: such questions are not counted."""
        return await self.upstreams.digest(route, path, name) == known.digest

    async def _fetched(
        self, route: Route, path: str, repository: str, reference: str
    ) -> ManifestRecord:
        return await self._larder.keep(
            repository, await self.upstreams.manifest(route, path, reference)
        )

    async def tags(self, route: Route, path: str) -> list[str]:
        """All tags of a repository. Raises NoneHasItError."""
        return await self.upstreams.tags(route, path)

    async def has(self, route: Route, repository: str, digest: str) -> bool:
        """Whether a blob need not be fetched: by this route and login it was before.

        Never because another tenant has it: who can write to an upstream could name a blob of his.
        """
        files = self._catalogue.files
        if await asyncio.to_thread(files.renew, repository, digest):
            return True
        if await asyncio.to_thread(self._larder.has_fetched, route, digest) is None:
            return False
        await asyncio.to_thread(files.link, repository, digest)
        return True

    async def blob(
        self, route: Route, path: str, blob: Descriptor, repository: str, tell: Tell | None = None
    ) -> None:
        """Let a repository of the larder have a blob. Raises LabfleetError."""
        if not await self.has(route, repository, blob.digest):
            await self._fetcher.fetch(route, path, blob, repository, tell)

    # -- describing

    async def describe(
        self, wish: DescribeRemote, route: Route, reference: references.Reference
    ) -> RemoteDescription:
        """What an upstream says of an image. Raises LabfleetError."""
        _, path = references.split_registry(reference.repository)
        try:
            top = await self.manifest(route, path, reference.tag or reference.digest or "")
        except NoneHasItError as exc:
            raise core.verdict(wish.reference, reference.repository, exc.troubles) from exc
        manifest = self._catalogue.manifest(top.digest)
        return RemoteDescription(
            media_type=top.media_type,
            digest=top.digest,
            size_bytes=top.size_bytes,
            platforms=await self._platforms(route, path, top, manifest),
        )

    async def _platforms(
        self, route: Route, path: str, top: ManifestRecord, manifest: Manifest
    ) -> tuple[RemotePlatform, ...]:
        if manifest.config is None:
            named = [child.platform for child in manifest.children if child.platform is not None]
            return tuple(
                RemotePlatform(architecture=each.architecture, os=each.os, variant=each.variant)
                for each in named
            )
        if not manifest.config.media_type.endswith("image.config.v1+json") and (
            not manifest.config.media_type.endswith("container.image.v1+json")
        ):
            return ()
        if manifest.config.size > _MOST_CONFIG_BYTES:
            raise InvalidRequestError(f"config {manifest.config.digest} is too large")
        await self.blob(route, path, manifest.config, top.repository)
        config = _document(self._catalogue.files.read(manifest.config.digest, _MOST_CONFIG_BYTES))
        return (
            RemotePlatform(
                architecture=str(config.get("architecture") or platforms.OWN.architecture),
                os=str(config.get("os") or platforms.OWN.os),
                variant=str(config.get("variant") or ""),
            ),
        )


def _document(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
