"""A layer's bytes from whoever has them: other hosts first, the image store as the last resort.

A source that fails is left, and the next goes on at the byte where it ended. Whether the bytes are the
layer is known at the end only, by its digest; `Attempt` then says who sent some of them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from labfleet_chassis.host_blobs import HostBusyError
from labfleet_chassis.logs import Log
from labfleet_proto.errors import LabfleetError, NotFoundError, UnavailableError
from labfleet_proto.ids import HostId
from labfleet_proto.images import LayerRef
from labfleet_proto.tenants import FLEET_USER
from labfleet_runtime_agent.adapters.peers import Peers
from labfleet_runtime_agent.metrics import LAYER_FAILOVERS, LAYER_FETCHED

_PIECE = 1 << 18
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
    is_local: bool = False
    """Whether its blob is kept here, and only has to be unpacked again."""
    heard: set[HostId] = field(default_factory=set)
    """Hosts that sent a part."""


class StoreBlobs:
    """The image store as a source of layers."""

    def __init__(self, registry_url: str, fleet_secret: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=registry_url,
            auth=(FLEET_USER, fleet_secret),
            timeout=httpx.Timeout(30.0, connect=5.0),
        )

    async def read(self, repository: str, layer: LayerRef, first: int) -> AsyncIterator[bytes]:
        """Yield a layer from a byte on. Raises NotFoundError, UnavailableError."""
        url = f"/v2/{repository}/blobs/{layer.digest}"
        headers = {"Range": f"bytes={first}-"} if first else {}
        try:
            async with self._client.stream("GET", url, headers=headers) as answer:
                if answer.status_code == 404:
                    raise NotFoundError(f"layer {layer.digest} of {repository} is not in the store")
                answer.raise_for_status()
                if first and answer.status_code != 206:
                    raise UnavailableError(f"fetch layer {layer.digest}: no range in the answer")
                async for data in answer.aiter_raw(_PIECE):
                    yield data
        except httpx.HTTPError as exc:
            raise UnavailableError(f"fetch layer {layer.digest}: {exc!r}") from exc

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


class LayerDownload:
    """Reads layers from the best source there is."""

    def __init__(self, store: StoreBlobs, peers: Peers, log: Log) -> None:
        self._store = store
        self.peers = peers
        self._log = log

    async def bytes_of(
        self, repository: str, layer: LayerRef, attempt: Attempt
    ) -> AsyncIterator[bytes]:
        """Yield all bytes of a layer, in order. Raises NotFoundError, UnavailableError."""
        at = store_failures = 0
        search = _Search(self.peers, layer, attempt)
        while at == 0 or at < layer.size_bytes:
            host = await search.next() if layer.size_bytes > 0 else None
            source = (
                self.peers.read(host, layer, at)
                if host is not None
                else self._store.read(repository, layer, at)
            )
            fetched = LAYER_FETCHED.labels("store" if host is None else "peer")
            try:
                async with contextlib.aclosing(source) as chunks:  # type: ignore[type-var]
                    async for data in chunks:
                        at += len(data)
                        fetched.inc(len(data))
                        if host is not None:
                            attempt.heard.add(host)
                        yield data
            except HostBusyError:
                search.was_busy(host)
                continue
            except LabfleetError as exc:
                LAYER_FAILOVERS.labels("store" if host is None else "peer").inc()
                self._log.warning(
                    "layer.failover", digest=layer.digest, at=at, source=host, error=exc.message
                )
                if host is not None:
                    continue
                store_failures += 1
                if isinstance(exc, NotFoundError) or store_failures == _STORE_TRIES:
                    raise
                await asyncio.sleep(_STORE_PAUSE_S)
                continue
            if host is None:
                return

    async def close(self) -> None:
        """Close connections."""
        await self._store.close()


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
