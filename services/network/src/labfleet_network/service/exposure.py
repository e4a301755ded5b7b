"""Published ports of the containers here: on this host, and at the fleet's entry."""

import contextlib

from labfleet_chassis.service import Chassis
from labfleet_network.service.ports import Ports, Publication
from labfleet_network.service.routers import Routers
from labfleet_network.settings import Settings
from labfleet_proto.errors import UnavailableError
from labfleet_proto.ids import ContainerId, TenantId
from labfleet_proto.networks import (
    ENTRY,
    PUBLISH_PORTS,
    UNPUBLISH_PORTS,
    AddressRecord,
    PublishedPort,
    PublishPorts,
    ReleaseInterface,
)

_ENTRY_LIMIT_S = 2.0


class Exposure:
    """Publishes here and asks the entry to do the same."""

    def __init__(
        self, chassis: Chassis, settings: Settings, ports: Ports, routers: Routers
    ) -> None:
        self._chassis = chassis
        self._settings = settings
        self._ports = ports
        self._routers = routers

    async def lead(
        self,
        container: ContainerId,
        record: AddressRecord,
        ports: tuple[PublishedPort, ...],
    ) -> None:
        """Lead the ports of this host to an address of the container, through its network's router.

        Raises PortInUseError, InternalError.
        """
        router = self._routers.get(record.network)
        tenant, attempt = record.tenant, record.attempt
        direct = Publication(tenant, attempt, record.address, ports, keeps_host_port=False)
        if router is None:
            await self._ports.publish(container, direct)
            return
        await router.ports.publish(container, direct)
        indirect = Publication(tenant, attempt, router.address, ports, keeps_host_port=True)
        await self._ports.publish(container, indirect)

    async def publish(
        self,
        container: ContainerId,
        record: AddressRecord,
        ports: tuple[PublishedPort, ...],
    ) -> None:
        """Lead the ports of host and entry to an address of the container.

        Raises PortInUseError, InternalError.
        """
        await self.lead(container, record, ports)
        if not self._settings.with_entry:
            return
        wish = PublishPorts(
            container=container, attempt=record.attempt, target=self._settings.address, ports=ports
        )
        try:
            await self._chassis.bus.call(
                PUBLISH_PORTS,
                wish,
                tenant=record.tenant,
                subject=container,
                host=ENTRY,
                timeout_s=_ENTRY_LIMIT_S,
            )
        except UnavailableError as exc:  # its own loop leads them once the container runs
            self._chassis.log.warning("entry.silent", container=container, error=exc.message)

    async def withdraw(self, tenant: TenantId | None, container: ContainerId, attempt: int) -> None:
        """End the ports of this attempt or an older one; unknown is success."""
        had_ports = container in self._ports.published()
        await self._ports.withdraw(container, attempt)
        for router in self._routers.all():
            await router.ports.withdraw(container, attempt)
        if had_ports and self._settings.with_entry and tenant is not None:
            with contextlib.suppress(UnavailableError):  # its own loop withdraws them
                await self._chassis.bus.call(
                    UNPUBLISH_PORTS,
                    ReleaseInterface(container=container, attempt=attempt),
                    tenant=tenant,
                    subject=container,
                    host=ENTRY,
                    timeout_s=_ENTRY_LIMIT_S,
                )
