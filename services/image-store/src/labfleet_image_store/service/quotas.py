"""Quotas of tenants: what their repositories refer to, each blob once, and what is on its way to them.

What counts is found out from the manifests each time, so nothing can be counted wrong for long. A blob that was
pushed and that no manifest refers to yet counts for a while, too; an upload as far as it has come, or as it is
announced.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from labfleet_chassis.clock import Clock
from labfleet_chassis.mirror import Mirror
from labfleet_image_store import metrics
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.uploads import Upload
from labfleet_image_store.core import manifests, quotas
from labfleet_image_store.core.quotas import Quota, QuotaExceededError
from labfleet_proto.builds import BUILD_REPOSITORY
from labfleet_proto.errors import LabfleetError, NotFoundError
from labfleet_proto.ids import OPERATORS, Digest, TenantId
from labfleet_proto.images import (
    FETCHED,
    ManifestRecord,
    is_unnamed,
    own_repository,
    owner_of,
)
from labfleet_proto.tenants import TenantRecord

_PENDING_NS = 900 * 1_000_000_000
"""A blob that was pushed and is in no manifest counts so long: its push may have been given up."""
_STEP_BYTES = 16 << 20
"""Uploads of unknown length take room in such steps."""

QuotaOf = Callable[[TenantId], Quota]


def quotas_in(tenants: Mirror[TenantRecord]) -> QuotaOf:
    """Where quotas are looked up."""

    def quota_of(tenant: TenantId) -> Quota:
        record = tenants.get(tenant)
        if record is None:
            return Quota()
        return Quota(record.most_stored_bytes, record.most_repositories)

    return quota_of


@dataclass(frozen=True)
class Holding:
    """What a tenant has."""

    blobs: Mapping[str, int]
    repositories: frozenset[str]

    @property
    def stored_bytes(self) -> int:
        """Of all its blobs, each once."""
        return sum(self.blobs.values())


class Quotas:
    """Says no before disk is filled."""

    def __init__(
        self, files: BlobFiles, stored: Mirror[ManifestRecord], quota_of: QuotaOf, clock: Clock
    ) -> None:
        self._files = files
        self._stored = stored
        self._quota_of = quota_of
        self._clock = clock
        self._below: dict[str, tuple[str, ...]] = {}
        self._pending: dict[tuple[str, str], int] = {}
        """When a repository's blob was last received, in ns."""
        self._announced: dict[str, int] = {}
        """Bytes that uploads may come to, by id, while a request sends them."""
        self._turns: dict[TenantId, asyncio.Lock] = {}

    # -- what there is

    def holding(self, tenant: TenantId) -> Holding:
        """What a tenant has now."""
        digests: set[str] = set()
        repositories = set()
        for record in self._stored.values():
            if owner_of(record.repository) == tenant:
                digests.update(self.below(record.repository, record.digest))
                if _is_counted(tenant, record.repository):
                    repositories.add(record.repository)
        digests.update(self._arrived(tenant))
        return Holding(dict(self._sizes(digests)), frozenset(repositories))

    def every(self) -> dict[TenantId, Holding]:
        """What each tenant with a manifest has."""
        owners = {owner_of(record.repository) for record in self._stored.values()}
        self._below = {
            record.digest: self._parts(record.digest) for record in self._stored.values()
        }
        return {owner: self.holding(owner) for owner in owners - {OPERATORS, FETCHED}}

    def measure(self) -> None:
        """Set the metrics."""
        metrics.TENANT_BYTES.clear()
        for tenant, holding in self.every().items():
            metrics.TENANT_BYTES.labels(tenant).set(holding.stored_bytes)

    def _parts(self, digest: Digest) -> tuple[str, ...]:
        if digest not in self._below:
            try:
                body = self._files.read(digest, manifests.MOST_BYTES)
                self._below[digest] = tuple(manifests.parse(body, "").blobs)
            except LabfleetError:  # gone meanwhile, or damaged: it refers to nothing
                return ()
        return self._below[digest]

    def _arrived(self, tenant: TenantId) -> Iterator[str]:
        oldest_ns = self._clock.now_ns() - _PENDING_NS
        for (repository, digest), received_ns in list(self._pending.items()):
            if received_ns < oldest_ns or not self._files.links.refers(repository, digest):
                self._pending.pop((repository, digest), None)
            elif owner_of(repository) == tenant:
                yield digest

    def _sizes(self, digests: Iterable[str]) -> Iterator[tuple[str, int]]:
        for digest in digests:
            try:
                yield digest, self._files.size(digest)
            except NotFoundError:
                continue

    # -- whether there may be more

    def room(self, repository: str) -> "Room":
        """What may still be made in a repository, as it is now."""
        tenant = owner_of(repository)
        there = self._committed(tenant, self.holding(tenant), "")
        return Room(tenant, self._quota_of(tenant), there)

    @contextlib.asynccontextmanager
    async def turn(self, repository: str) -> AsyncIterator[None]:
        """From a `check` until its manifest is among the stored ones, for one request of a tenant at a time."""
        tenant = owner_of(repository)
        if not self._quota_of(tenant).is_set:
            yield
            return
        async with self._turns.setdefault(tenant, asyncio.Lock()):
            yield

    def check(self, repository: str, wanted: Mapping[str, int | None]) -> None:
        """Raise QuotaExceededError if a repository may not refer to some blobs.

        Args:
            repository: The store's own name.
            wanted: Sizes by digest; None for what is here already.
        """
        tenant = owner_of(repository)
        quota = self._quota_of(tenant)
        if not quota.is_set:
            return
        holding = self.holding(tenant)
        new = {digest: size for digest, size in wanted.items() if digest not in holding.blobs}
        here = dict(self._sizes(digest for digest, size in new.items() if size is None))
        more = sum(here.get(digest, size or 0) for digest, size in new.items())
        _refuse(quotas.too_much(tenant, quota, self._committed(tenant, holding, ""), more))
        if _is_counted(tenant, repository):
            _refuse(quotas.too_many(tenant, quota, holding.repositories, repository))

    def below(self, repository: str, digest: Digest) -> dict[str, int | None]:
        """A stored manifest and the blobs of it that its repository refers to, as `check` takes them."""
        parts = [part for part in self._parts(digest) if self._files.links.refers(repository, part)]
        return {digest: None, **dict.fromkeys(parts)}

    def begin(self, repository: str) -> None:
        """Raise QuotaExceededError if not even the smallest blob may be uploaded."""
        self.check(repository, {"": 1})

    def has(self, repository: str, digest: str) -> bool:
        """Whether a blob counts for the repository's tenant already: one more costs nothing."""
        tenant = owner_of(repository)
        return self._quota_of(tenant).is_set and digest in self.holding(tenant).blobs

    def announce(self, upload: Upload, total: int) -> None:
        """An upload wants to come to so many bytes in this request. Raises QuotaExceededError."""
        if total <= self._announced.get(upload.id, 0):
            return
        tenant = owner_of(upload.repository)
        quota = self._quota_of(tenant)
        if not quota.stored_bytes:
            return
        others = self._committed(tenant, self.holding(tenant), upload.id)
        _refuse(quotas.too_much(tenant, quota, others, total))
        step = min(total + _STEP_BYTES, max(quota.stored_bytes - others, total))
        self._announced[upload.id] = step

    def settle(self, upload: Upload) -> None:
        """The request that sent bytes is over: the upload counts as far as it has come."""
        self._announced.pop(upload.id, None)

    def received(self, repository: str, digest: str) -> None:
        """A blob has come that no manifest may refer to yet."""
        tenant = owner_of(repository)
        if self._quota_of(tenant).is_set:
            self._pending[repository, digest] = self._clock.now_ns()

    def _committed(self, tenant: TenantId, holding: Holding, but: str) -> int:
        """Bytes that a tenant has or is sending, without one upload."""
        coming = sum(
            max(upload.size, self._announced.get(upload.id, 0))
            for upload in self._files.uploads.all()
            if upload.id != but and owner_of(upload.repository) == tenant
        )
        return holding.stored_bytes + coming


class Room:
    """For blobs that one request makes, one after the other; may be used in a thread."""

    def __init__(self, tenant: TenantId, quota: Quota, there_bytes: int) -> None:
        self._tenant = tenant
        self._quota = quota
        self._there_bytes = there_bytes

    def check(self, size: int) -> None:
        """Raise QuotaExceededError if a blob that has grown so far does not fit."""
        _refuse(quotas.too_much(self._tenant, self._quota, self._there_bytes, size))

    def take(self, size: int) -> None:
        """A blob is whole."""
        self._there_bytes += size


def _refuse(reason: str | None) -> None:
    if reason is not None:
        metrics.QUOTA_REFUSALS.inc()
        raise QuotaExceededError(reason)


def _is_counted(tenant: TenantId, repository: str) -> bool:
    """Whether it is a repository that the tenant has made itself."""
    return not is_unnamed(repository) and repository != own_repository(tenant, BUILD_REPOSITORY)
