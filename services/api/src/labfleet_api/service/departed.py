"""Takes away the networks of tenants that are gone: each has at least its default network."""

import asyncio

from labfleet_api.service.fleet import Fleet
from labfleet_api.service.networks import Networks
from labfleet_chassis.caller import acting_for
from labfleet_proto.ids import TenantId

_PASS_EVERY_S = 5.0


class Departed:
    """Compares networks with tenants, for ever; safe to run in several instances."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._networks = Networks(fleet)

    async def keep(self) -> None:
        """Look every few seconds, for ever. Raises UnavailableError."""
        while True:
            await asyncio.sleep(_PASS_EVERY_S)
            await self._pass()

    async def _pass(self) -> None:
        for record in self._fleet.memory.networks.values():
            if await self._is_gone(record.tenant):
                with acting_for(record.tenant):
                    await self._networks.drop(record)
                self._fleet.chassis.log.info("network.left", network=record.id)

    async def _is_gone(self, tenant: TenantId) -> bool:
        """Whether there is no such tenant, nor a container of it."""
        memory = self._fleet.memory
        if memory.credentials.is_known(tenant):
            return False
        if any(record.tenant == tenant for record in memory.containers.values()):
            return False
        return await memory.credentials.tenants.bucket.get(tenant) is None  # mirrors may be behind
