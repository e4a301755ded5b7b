"""Damaged blobs: told, and brought again from wherever their bytes still are."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from labfleet_chassis.caller import acting_for
from labfleet_chassis.clock import Clock
from labfleet_chassis.logs import Log
from labfleet_image_store import metrics
from labfleet_image_store.adapters.quarantine import Damaged
from labfleet_image_store.core import scrubbing
from labfleet_image_store.core.manifests import Descriptor
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_image_store.service.events import Events
from labfleet_proto.errors import LabfleetError
from labfleet_proto.ids import OPERATORS, Digest
from labfleet_proto.images import FETCHED, familiar_repository, owner_of
from labfleet_proto.scrubbing import DamagedBlob

_LOOK_EVERY_S = 2.0
_MOST_SHOWN = 20


@dataclass(frozen=True)
class Wanted:
    """A blob that is to be brought again."""

    digest: Digest
    repositories: tuple[str, ...]
    """Who refers to it."""
    descriptor: Descriptor | None
    """As a manifest has it; None if it is a manifest itself, or if none names it."""
    is_manifest: bool


class Source(Protocol):
    """Somewhere the bytes of blobs may still be.

    Hosts are one (`host_source.py`), mirrors another (`mirror_source.py`); whoever pushes a blob again heals
    it without being asked. Of hosts only the blobs that they keep for one another count: what they have
    unpacked does not give the same bytes when it is packed again.
    """

    name: str

    async def bring(self, wanted: Wanted) -> bool:
        """Put the blob into the store, its digest checked; False if it is not to be had here.

        Raises LabfleetError: not now.
        """


@dataclass
class _Case:
    repositories: tuple[str, ...]
    tries: int = 0
    next_try_s: float = 0.0
    last_try_s: float = float("-inf")


class Healer:
    """Compares what is set aside with what it has told; the quarantine alone says what is damaged."""

    def __init__(
        self,
        catalogue: Catalogue,
        sources: Sequence[Source],
        events: Events,
        clock: Clock,
        log: Log,
    ) -> None:
        self._catalogue = catalogue
        self._files = catalogue.files
        self._sources = sources
        self._events = events
        self._clock = clock
        self._log = log
        self._cases: dict[Digest, _Case] = {}
        self._turn = asyncio.Lock()
        self.healed: frozenset[Digest] = frozenset()
        """Since the store began."""

    async def run(self) -> None:
        """Look every while, for ever: damage is found by whoever reads."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Tell what is new, heal what can be healed now."""
        async with self._turn:
            here = await asyncio.to_thread(self._files.quarantine.all)
            for damaged in here:
                if damaged.digest not in self._cases:
                    await self._told(damaged)
            for digest, case in self._cases.items():
                is_due = self._clock.monotonic_s() >= case.next_try_s
                if is_due and self._files.quarantine.has(digest):
                    await self._heal(digest, case)
            for digest in [each for each in self._cases if not self._files.quarantine.has(each)]:
                await self._ended(digest, self._cases.pop(digest))
            metrics.QUARANTINED.set(len(self._cases))

    async def heal(self, digest: str) -> bool:
        """Somebody waits for a blob: ask the sources now. Whether it is here."""
        if self._files.quarantine.has(digest):
            case = self._cases.get(Digest(digest))
            if case is not None:  # sooner, but mirrors are not asked for every one who waits
                case.next_try_s = min(case.next_try_s, case.last_try_s + scrubbing.retry_s(0))
            await self.look()
        return self._files.path_of(digest).exists()

    async def _told(self, damaged: Damaged) -> None:
        digest = damaged.digest
        repositories = tuple(await asyncio.to_thread(self._files.links.linkers, digest))
        self._cases[digest] = _Case(repositories)
        metrics.DAMAGED.inc()
        self._log.error(
            "blob.damaged", digest=digest, bytes=damaged.size_bytes,
            repositories=repositories[:_MOST_SHOWN],
        )  # fmt: skip
        await self._tell("damage", digest, repositories)

    async def _ended(self, digest: Digest, case: _Case) -> None:
        if not self._files.path_of(digest).exists():
            self._log.info("blob.forgotten", digest=digest)  # nobody referred to it any more
            return
        self.healed |= {digest}
        metrics.HEALED.inc()
        self._log.info("blob.healed", digest=digest)
        await self._tell("heal", digest, case.repositories)

    async def _tell(self, action: str, digest: Digest, repositories: tuple[str, ...]) -> None:
        """An event for each who refers to it, and for the operators."""
        for tenant in sorted({OPERATORS, *map(owner_of, repositories)} - {FETCHED}):
            own = [each for each in repositories if owner_of(each) == tenant] or repositories
            name = ", ".join(sorted({familiar_repository(each) for each in own})[:_MOST_SHOWN])
            with acting_for(tenant):
                await self._events.tell(action, digest, name or digest)

    async def _heal(self, digest: Digest, case: _Case) -> None:
        case.last_try_s = self._clock.monotonic_s()
        wanted = await self._wanted(digest)
        case.repositories = wanted.repositories or case.repositories
        for source in self._sources if wanted.repositories else ():
            try:
                if await source.bring(wanted):
                    metrics.BROUGHT.labels(source.name).inc()
                    self._log.info("blob.brought", digest=digest, source=source.name)
                    return
            except LabfleetError as exc:
                self._log.info(
                    "blob.unhealed", digest=digest, source=source.name, error=exc.message
                )
        case.next_try_s = self._clock.monotonic_s() + scrubbing.retry_s(case.tries)
        case.tries += 1

    async def _wanted(self, digest: Digest) -> Wanted:
        repositories = tuple(await asyncio.to_thread(self._files.links.linkers, digest))
        records = [
            each for each in self._catalogue.manifests.values() if each.repository in repositories
        ]
        is_manifest = any(each.digest == digest for each in records)
        manifests = []
        for record in records:
            try:
                manifests.append(self._catalogue.manifest(record.digest))
            except LabfleetError:
                continue  # it is damaged, too
        found = None if is_manifest else scrubbing.descriptor_of(digest, manifests)
        return Wanted(digest, repositories, found, is_manifest)

    # -- asked by operators

    async def damaged(self) -> tuple[DamagedBlob, ...]:
        """What is set aside now."""
        return await asyncio.to_thread(self._damaged)

    def _damaged(self) -> tuple[DamagedBlob, ...]:
        return tuple(
            DamagedBlob(
                digest=each.digest,
                size_bytes=each.size_bytes,
                found_at_s=each.found_at_s,
                repositories=tuple(self._files.links.linkers(each.digest)),
            )
            for each in self._files.quarantine.all()
        )

    async def findings(self) -> tuple[str, ...]:
        """What `labfleet fsck` says of the store's blobs."""
        lost = await asyncio.to_thread(self._files.lost)
        said = [
            f"blob {each.digest} of {each.names} is damaged and set aside: push it "
            "again, or add a mirror that has it"
            for each in await self.damaged()
            if each.repositories
        ]
        said += [
            f"blob {link.digest} of {familiar_repository(link.repository)} is lost" for link in lost
        ]
        return tuple(said)
