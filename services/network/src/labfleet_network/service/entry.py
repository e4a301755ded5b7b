"""The fleet's entry: its ports lead to the hosts that run the containers (ADR 0002)."""

import asyncio
import contextlib

from labfleet_chassis.service import Chassis
from labfleet_network.adapters.links import set_sysctl
from labfleet_network.adapters.nft import Nft
from labfleet_network.core import firewall, wanted
from labfleet_network.service.memory import Lives
from labfleet_network.service.ports import Ports, Publication
from labfleet_network.settings import Settings
from labfleet_proto.errors import PortInUseError
from labfleet_proto.ids import ContainerId
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing
from labfleet_proto.networks import NetworkCheck, PublishPorts, ReleaseInterface

_PASS_EVERY_S = 5.0
_SETTLE_S = 0.5
"""Ports come and go by jobs; a pass finds what a lost word left."""


class EntryNetwork:
    """Serves the network services of all hosts."""

    def __init__(self, chassis: Chassis, memory: Lives, nft: Nft, settings: Settings) -> None:
        self._chassis = chassis
        self._memory = memory
        self._nft = nft
        self._settings = settings
        self.ports = Ports(nft, f"{settings.tag}-entry")
        self._lock = asyncio.Lock()

    async def prepare(self) -> None:
        """Set the machine up, and lead the ports of all running containers."""
        set_sysctl("ipv4/ip_forward", "1")
        interface = self._settings.underlay_interface
        set_sysctl(f"ipv4/conf/{interface}/route_localnet", "1")
        await self._nft.command(firewall.entry_table(self._settings.tag, interface))
        await self.reconcile()

    async def publish(self, job: Job, args: PublishPorts) -> Nothing:
        """Serve `publish_ports`. Safe to repeat: by container and attempt. Raises PortInUseError."""
        async with self._lock:
            await self.ports.publish(
                args.container,
                Publication(
                    job.tenant, args.attempt, args.target, args.ports, keeps_host_port=True
                ),
            )
        return Nothing()

    async def unpublish(self, _job: Job, args: ReleaseInterface) -> Nothing:
        """Serve `unpublish_ports`. Unknown is success."""
        async with self._lock:
            await self.ports.withdraw(args.container, args.attempt)
        return Nothing()

    async def check(self, _job: Job, _args: Nothing) -> NetworkCheck:
        """Serve `check_network`: ports that lead nowhere."""
        observed = self._memory.seen()
        findings = [
            f"entry: ports of {container} lead nowhere"
            for container, each in self.ports.published().items()
            if container not in observed and await self._is_over(container, each)
        ]
        return NetworkCheck(findings=tuple(findings))

    async def _is_over(self, container: ContainerId, each: Publication) -> bool:
        return await self._memory.is_over(each.tenant, container, each.attempt)

    async def keep(self) -> None:
        """Compare ports and records whenever something moved, and every five seconds; for ever."""
        moved = asyncio.Event()
        for mirror in (self._memory.containers, self._memory.observed, self._memory.hosts):
            mirror.listen(lambda _key, _entry: moved.set())
        while True:
            moved.clear()
            await self.reconcile()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PASS_EVERY_S):
                    await moved.wait()
                    await asyncio.sleep(_SETTLE_S)

    async def reconcile(self) -> None:
        """One full pass: end what is over, lead what runs."""
        async with self._lock:
            for container, each in self.ports.published().items():
                if await self._is_over(container, each):
                    await self.ports.withdraw(container, each.attempt)
            observed = self._memory.seen()
            for record in self._memory.containers.values():
                seen = observed.get(record.id)
                host = self._memory.hosts.get(record.assignment.host)
                if seen is None or host is None or not wanted.publishing(record, seen):
                    continue
                publication = Publication(
                    record.tenant,
                    seen.run,
                    host.address,
                    wanted.ports_of(record),
                    keeps_host_port=True,
                )
                try:
                    await self.ports.publish(record.id, publication)
                except PortInUseError as exc:
                    self._chassis.log.warning("port.taken", container=record.id, error=exc.message)
