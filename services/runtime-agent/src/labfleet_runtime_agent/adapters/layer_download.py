"""A layer's bytes from whoever has them: other hosts first, the image store as the last resort.

A source that fails is left, and the next goes on at the byte where it ended. Whether the bytes are the
layer is known at the end only, by its digest; `Attempt` then says who sent some of them.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

from labfleet_chassis.host_blobs import HostBusyError
from labfleet_chassis.logs import Log
from labfleet_proto.errors import DiskFullError, LabfleetError, NotFoundError
from labfleet_proto.ids import HostId
from labfleet_proto.images import LayerRef
from labfleet_runtime_agent.adapters.growing_blob import GrowingBlob, Source
from labfleet_runtime_agent.adapters.peers import Peers
from labfleet_runtime_agent.adapters.store_blobs import StoreBlobs
from labfleet_runtime_agent.metrics import LAYER_FAILOVERS, LAYER_FETCHED

_BUSY_LIMIT_S = 15.0
_BUSY_PAUSE_S = 0.3
_STORE_TRIES = 3
_STORE_PAUSE_S = 0.5


@dataclass
class Attempt:
    """One try to fetch a layer."""

    is_claimed: bool = False
    """Whether this host serves the layer meanwhile."""
    with_peers: bool = True
    is_of_before: bool = False
    """Whether its blob, or a part of it, was here already: that may be what is wrong with it."""
    heard: set[HostId] = field(default_factory=set)
    """Hosts that sent a part."""


class LayerDownload:
    """Reads layers from the best source there is."""

    def __init__(self, store: StoreBlobs, peers: Peers, log: Log) -> None:
        self._store = store
        self.peers = peers
        self._log = log

    async def fill(
        self, blob: GrowingBlob, repository: str, layer: LayerRef, attempt: Attempt
    ) -> None:
        """Fetch what a layer's blob lacks. Raises NotFoundError, UnavailableError, DiskFullError."""
        store_failures = 0
        search = _Search(self.peers, layer, attempt)
        while not blob.is_whole:
            host = await search.next()
            try:
                await self._read(host, blob, repository, layer, attempt)
            except HostBusyError:
                search.was_busy(host)
            except DiskFullError:
                raise
            except LabfleetError as exc:
                LAYER_FAILOVERS.labels("store" if host is None else "peer").inc()
                self._log.warning(
                    "layer.failover",
                    digest=layer.digest,
                    at=blob.has,
                    source=host,
                    error=exc.message,
                )
                if host is not None:
                    continue
                store_failures += 1
                if isinstance(exc, NotFoundError) or store_failures == _STORE_TRIES:
                    raise
                await asyncio.sleep(_STORE_PAUSE_S)

    async def _read(
        self,
        host: HostId | None,
        blob: GrowingBlob,
        repository: str,
        layer: LayerRef,
        attempt: Attempt,
    ) -> None:
        """Read from one source to its end, or until it fails."""
        fetched = LAYER_FETCHED.labels("store" if host is None else "peer")
        opened: contextlib.AbstractAsyncContextManager[Source] = (
            self._store.opened(repository, layer, blob.has)
            if host is None
            else self.peers.opened(host, layer, blob.has)
        )
        async with opened as source:
            while not blob.is_whole:
                before = blob.has
                try:
                    await blob.fill(source)
                finally:
                    fetched.inc(blob.has - before)
                    if host is not None and blob.has > before:
                        attempt.heard.add(host)


class _Search:
    """Which source is next: each host once, again only those that were busy, and then the store."""

    def __init__(self, peers: Peers, layer: LayerRef, attempt: Attempt) -> None:
        self._peers = peers
        self._layer = layer
        self._attempt = attempt
        self._tried: set[HostId] = set()
        self._busy: set[HostId] = set()
        self._left: list[HostId] | None = None
        self._busy_until_s = asyncio.get_running_loop().time() + _BUSY_LIMIT_S
        self._is_last_resort = not attempt.with_peers

    async def next(self) -> HostId | None:
        """The host to read from, or None for the store, which it stays then."""
        if self._is_last_resort:
            if self._left is None and self._attempt.is_claimed:
                self._left = []
                await self._find()  # those who begin later read from here
            return None
        if self._left is None:
            self._left = await self._find()
        if not self._left and self._tried:
            await self._look_again()
        if not self._left:
            self._is_last_resort = True
            return None
        host = self._left.pop(0)
        self._tried.add(host)
        return host

    async def _look_again(self) -> None:
        """Others may have it by now, and those that were busy have room again."""
        if self._busy and asyncio.get_running_loop().time() < self._busy_until_s:
            await asyncio.sleep(_BUSY_PAUSE_S)
            self._tried -= self._busy
            self._busy.clear()
        found = await self._peers.find(self._layer.digest, is_claimed=False)
        self._left = [host for host in found if host not in self._tried]

    async def _find(self) -> list[HostId]:
        return await self._peers.find(self._layer.digest, is_claimed=self._attempt.is_claimed)

    def was_busy(self, host: HostId | None) -> None:
        """A host has no room at the moment."""
        if host is not None:
            self._busy.add(host)
