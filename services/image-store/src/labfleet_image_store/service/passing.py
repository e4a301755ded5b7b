"""What the registry's own clients ask for and an upstream has: fetched, then served as the store's own."""

import asyncio
import contextlib
from collections.abc import Sequence

from labfleet_image_store.core import references
from labfleet_image_store.core import upstreams as core
from labfleet_image_store.core.manifests import Descriptor
from labfleet_image_store.core.upstreams import Route
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_image_store.service.door import Visitor
from labfleet_image_store.service.healing import Healer
from labfleet_image_store.service.remote import Remote
from labfleet_image_store.service.upstreams import NoneHasItError
from labfleet_proto.errors import NotFoundError
from labfleet_proto.images import ManifestRecord
from labfleet_proto.upstreams import RegistryLogin

_NOBODY = RegistryLogin()
_HEAL_LIMIT_S = 20.0
"""Docker and the hosts wait longer for an answer."""


class Passing:
    """Goes to upstreams for a visitor who may pull, with the operators' logins only."""

    def __init__(self, catalogue: Catalogue, remote: Remote, healer: Healer) -> None:
        self._catalogue = catalogue
        self._remote = remote
        self._healer = healer

    async def heal(self, repositories: Sequence[str], digest: str) -> None:
        """Bring a damaged blob of one of some repositories again, if that can be done soon."""
        files = self._catalogue.files
        if files.quarantine.has(digest) and any(
            files.links.refers(r, digest) for r in repositories
        ):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEAL_LIMIT_S):
                    await self._healer.heal(digest)

    def _way(self, visitor: Visitor, name: str) -> tuple[Route, str] | None:
        """Route and path of a repository's name; None where nothing is to be asked."""
        if visitor.is_exact or not visitor.may_fetch:
            return None
        registry, path = references.split_registry(name)
        route = self._remote.upstreams.route(registry, _NOBODY)
        return (route, path) if route is not None else None

    async def manifest(self, visitor: Visitor, name: str, reference: str) -> ManifestRecord:
        """A manifest that is not the visitor's. Raises NotFoundError."""
        way = self._way(visitor, name)
        if way is None:
            raise NotFoundError(f"{name}:{reference} is not known")
        try:
            return await self._remote.manifest(*way, reference)
        except NoneHasItError as exc:
            error = core.verdict(f"{name}:{reference}", name, exc.troubles)
            raise NotFoundError(error.message) from exc

    async def tags(self, visitor: Visitor, name: str) -> list[str]:
        """Tags of a repository that is not the visitor's. Raises NotFoundError."""
        way = self._way(visitor, name)
        if way is None:
            raise NotFoundError(f"repository {name} is not known")
        try:
            return sorted(await self._remote.tags(*way))
        except NoneHasItError as exc:
            raise NotFoundError(f"repository {name} is not known") from exc

    async def blob(self, visitor: Visitor, name: str, digest: str) -> str:
        """A repository that has the blob, here when this returns. Raises NotFoundError.

        Only what a manifest names that came the same way.
        """
        way = self._way(visitor, name)
        blob = await asyncio.to_thread(self._named, *way, digest) if way is not None else None
        if way is None or blob is None:
            raise NotFoundError(f"blob {digest} is not in {name}")
        repository = self._remote.repository(*way)
        await self._remote.blob(*way, blob, repository)
        return repository

    def _named(self, route: Route, path: str, digest: str) -> Descriptor | None:
        repository = self._remote.repository(route, path)
        for record in self._catalogue.manifests.values():
            if record.repository == repository:
                manifest = self._catalogue.manifest(record.digest)
                parts: list[Descriptor] = [*manifest.layers]
                if manifest.config is not None:
                    parts.append(manifest.config)
                for part in parts:
                    if part.digest == digest and digest in manifest.blobs:
                        return part
        return None
