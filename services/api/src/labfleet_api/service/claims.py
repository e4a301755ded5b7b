"""Gives back what networks claimed that never came to be, or went only half."""

import asyncio
from typing import TypeVar

from labfleet_api.core.claims import Orphans
from labfleet_api.service.fleet import Fleet
from labfleet_chassis.mirror import Mirror
from labfleet_chassis.service import Chassis
from labfleet_proto import buckets
from labfleet_proto.errors import StaleError
from labfleet_proto.message import Message
from labfleet_proto.networks import NetworkNameRecord, SubnetClaim

M = TypeVar("M", bound=Message)

_PASS_EVERY_S = 2.5


class Claims:
    """Names, address ranges and VNIs without a network."""

    def __init__(
        self, fleet: Fleet, names: Mirror[NetworkNameRecord], subnets: Mirror[SubnetClaim]
    ) -> None:
        self._fleet = fleet
        self._names = names
        self._subnets = subnets
        self._orphans = Orphans()

    @classmethod
    async def open(cls, chassis: Chassis, fleet: Fleet) -> "Claims":
        """Mirror the claims."""
        return cls(
            fleet,
            await chassis.mirror(buckets.NETWORK_NAMES),
            await chassis.mirror(buckets.SUBNETS),
        )

    async def keep(self) -> None:
        """Look every few seconds, for ever. Raises UnavailableError."""
        while True:
            await asyncio.sleep(_PASS_EVERY_S)
            await self._pass()

    async def _pass(self) -> None:
        networks = self._fleet.memory.networks
        due = self._orphans.due(
            {key: entry.value for key, entry in self._names.entries.items()},
            {key: entry.value for key, entry in self._subnets.entries.items()},
            networks.entries.keys(),
            self._fleet.clock.monotonic_s(),
        )
        for key, network in list(due):
            if await networks.bucket.get(network) is not None:
                continue  # the mirror is behind
            await _drop(self._names, key)
            await _drop(self._subnets, key)
            self._fleet.chassis.log.info("claim.dropped", claim=key, network=network)


async def _drop(mirror: Mirror[M], key: str) -> None:
    """Delete at the revision that was seen; changed meanwhile means that it is another's now."""
    entry = mirror.entries.get(key)
    if entry is None:
        return
    try:
        await mirror.bucket.delete(key, entry.revision)
    except StaleError:
        return
