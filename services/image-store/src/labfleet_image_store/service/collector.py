"""Garbage collection of blobs while everything goes on: mark, then sweep what two passes agree on."""

import asyncio

from labfleet_chassis.clock import Clock
from labfleet_chassis.logs import Log
from labfleet_chassis.store import Bucket
from labfleet_image_store.adapters.layers import Layers
from labfleet_image_store.core import collecting
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import LabfleetError

_NS_PER_S = 1_000_000_000


class Collector:
    """Takes references that nothing needs, then blobs without a reference.

    Whoever pushes renews the references that he relies on; they stay for `grace_s` from then on.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        layers: Layers,
        containers: Bucket[ContainerRecord],
        clock: Clock,
        log: Log,
    ) -> None:
        self._catalogue = catalogue
        self._layers = layers
        self._containers = containers
        self._clock = clock
        self._log = log
        self._suspects: set[tuple[str, str]] = set()

    async def run(self, every_s: float, grace_s: float) -> None:
        """Collect for ever."""
        while True:
            await asyncio.sleep(every_s)
            await self.collect(grace_s)

    async def collect(self, grace_s: float) -> int:
        """One pass; return how many blobs went.

        Where a manifest cannot be read, its repository lets go of nothing; nor does any when the
        containers cannot be read.
        """
        files = self._catalogue.files
        links = await asyncio.to_thread(files.links.all)
        try:
            (
                marked,
                unread,
            ) = await self._marked()  # after the links: what is marked meanwhile is not missed
        except LabfleetError as exc:
            self._log.warning("collector.ended", error=exc.message)
            return 0
        links = collecting.certain(links, unread)
        oldest_s = self._clock.now_ns() / _NS_PER_S - grace_s
        doomed = collecting.doomed(links, marked, self._suspects, oldest_s)
        self._suspects = collecting.unmarked(links, marked)
        await asyncio.to_thread(files.unlink_stale, doomed, oldest_s)
        gone = await asyncio.to_thread(files.drop_unlinked, oldest_s)
        for digest in gone:
            self._layers.forget(digest)
            self._catalogue.forget(digest)
        if doomed or gone:
            self._log.info("collector.done", references=len(doomed), blobs=len(gone))
        return len(gone)

    async def _marked(self) -> tuple[set[tuple[str, str]], set[str]]:
        """What manifests and containers need, and repositories with a manifest that cannot be read.

        Raises UnavailableError.
        """
        marked: set[tuple[str, str]] = set()
        unread: set[str] = set()
        for record in self._catalogue.manifests.values():
            try:
                manifest = self._catalogue.manifest(record.digest)
            except LabfleetError as exc:
                unread.add(record.repository)
                self._log.warning("collector.unread", digest=record.digest, error=exc.message)
                continue
            needed = [record.digest, *manifest.blobs, *(each.digest for each in manifest.children)]
            marked.update((record.repository, digest) for digest in needed)
        for container in (await self._containers.values()).values():
            pin = container.image
            needed = [pin.image_id, pin.manifest_digest, *(each.digest for each in pin.layers)]
            marked.update((pin.repository, digest) for digest in needed)
        return marked, unread
