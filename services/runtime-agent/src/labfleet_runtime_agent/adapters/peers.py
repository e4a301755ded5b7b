"""Other hosts as sources of layers, through their data ports."""

import asyncio
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from labfleet_chassis import pieces
from labfleet_chassis.clock import Clock
from labfleet_chassis.host_blobs import HostBlobs
from labfleet_chassis.logs import Log
from labfleet_chassis.store import Bucket
from labfleet_proto.errors import UnavailableError
from labfleet_proto.hosts import HostRecord, Lease
from labfleet_proto.ids import Digest, HostId
from labfleet_proto.images import LayerRef
from labfleet_proto.layers import ReadBlob
from labfleet_runtime_agent.adapters.layer_copies import LayerCopies
from labfleet_runtime_agent.core.layer_sources import sources

_ASK_LIMIT_S = 5.0
_DISTRUST_S = 600.0


@dataclass(frozen=True)
class Fleet:
    """What this host must know to call others."""

    me: HostId
    hosts: Bucket[HostRecord]
    leases: Bucket[Lease]
    key: bytes
    """Signs tickets."""
    clock: Clock


class Peers:
    """Finds hosts that have a layer, and reads it from them."""

    def __init__(self, fleet: Fleet, copies: LayerCopies, silence_s: float, log: Log) -> None:
        self._fleet = fleet
        self._copies = copies
        self._blobs = HostBlobs(fleet.hosts, fleet.leases, fleet.key, fleet.clock, silence_s)
        self._log = log
        self._distrusted: dict[HostId, float] = {}

    async def find(self, digest: Digest, *, is_claimed: bool) -> list[HostId]:
        """Hosts to read a layer from, best first; none while the fleet's memory does not answer.

        With `is_claimed` this host serves the layer itself, from now on.
        """
        ask = self._copies.claim if is_claimed else self._copies.claims
        try:
            async with asyncio.timeout(_ASK_LIMIT_S):
                claims = await ask(digest)
        except (TimeoutError, UnavailableError) as exc:
            self._log.warning("layer.peers_unknown", digest=digest, error=str(exc))
            return []
        now_s = self._fleet.clock.monotonic_s()
        found = sources(self._fleet.me, digest, claims)
        return [host for host in found if self._distrusted.get(host, 0) <= now_s]

    def distrust(self, hosts: Collection[HostId]) -> None:
        """One of these sent what was not the layer: none is asked for a while."""
        end_s = self._fleet.clock.monotonic_s() + _DISTRUST_S
        self._distrusted |= dict.fromkeys(hosts, end_s)

    def opened(
        self, host: HostId, layer: LayerRef, first: int
    ) -> AbstractAsyncContextManager[pieces.Incoming]:
        """A layer from a byte on. Raises UnavailableError, HostBusyError, NotFoundError."""
        claim = self._copies.claim_of(layer.digest)
        wanted = ReadBlob(digest=layer.digest, first=first, claim=claim)
        return self._blobs.opened(host, wanted, layer.size_bytes)
