"""The network of one host: set up, swept, and kept equal to the records by a loop."""

import asyncio
import contextlib
import socket
from functools import partial

from labfleet_chassis.service import Chassis
from labfleet_network.adapters import resolving
from labfleet_network.adapters.dns import DnsServer
from labfleet_network.adapters.links import set_sysctl
from labfleet_network.adapters.resolving import Resolvers
from labfleet_network.core import firewall, naming, wanted
from labfleet_network.core.answers import Directory
from labfleet_network.metrics import REPAIRS
from labfleet_network.service.attempts import Attempts
from labfleet_network.service.fabric import Fabric
from labfleet_network.service.kernel import Kernel
from labfleet_network.service.memory import Memory
from labfleet_network.service.rewiring import Rewiring
from labfleet_network.settings import Settings
from labfleet_proto.buckets import container_key
from labfleet_proto.ids import ContainerId, HostId, NetworkId
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing
from labfleet_proto.networks import (
    NetworkCheck,
)

_PASS_EVERY_S = 5.0
_SETTLE_S = 0.02
_LONGEST_REST_S = 0.1
_REST = 4
"""So many times as long as a pass took it rests: a pass looks at all addresses, and a class may have a thousand."""


class HostNetwork:
    """Serves the agent of this host."""

    def __init__(
        self, chassis: Chassis, memory: Memory, kernel: Kernel, settings: Settings
    ) -> None:
        self._chassis = chassis
        self._memory = memory
        self._kernel = kernel
        self._settings = settings
        self._me = HostId(settings.host)
        self._names = Directory()
        self._names_at = (-1, -1)
        self.dns = DnsServer(self.directory, self._resolvers, chassis.log)
        self._fabric = Fabric(memory, kernel, settings, self.dns)
        self.attempts = Attempts(chassis, memory, kernel, settings, self._fabric)
        self.rewiring = Rewiring(self.attempts, settings)

    # -- start

    async def prepare(self) -> None:
        """Set the host up, sweep what no record explains, take up what is there."""
        self.attempts.adopt()
        await asyncio.to_thread(self._set_up)
        for token in self._kernel.namespaces.spares():
            await self._kernel.in_thread(self._kernel.namespaces.drop, token)
        running = {
            naming.namespace(self._settings.tag, seen.id): seen
            for seen in self._memory.seen().values()
            if seen.host == self._me
        }
        for name in self._kernel.namespaces.names() - set(running):
            if not self._is_recorded(name):
                REPAIRS.labels("namespace").inc()
                await self._kernel.in_thread(self._kernel.namespaces.remove, name)
        await self.reconcile()
        await self.attempts.republish()

    def _is_recorded(self, name: str) -> bool:
        return any(
            naming.namespace(self._settings.tag, record.id) == name
            for record in self._memory.containers.values()
        )

    def _set_up(self) -> None:
        for key, value in (
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/route_localnet", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("bridge/bridge-nf-call-iptables", "0"),
        ):
            set_sysctl(key, value)
        tag = self._settings.tag
        # What runs here already is bound by its rules at every moment: each table comes whole.
        rules = firewall.host_table(tag, self._settings.underlay_subnet)
        self._kernel.nft.run(rules + self._fabric.admissions())
        self._kernel.nft.run(firewall.spoof_table(tag) + self.attempts.sources())

    # -- jobs

    async def check(self, _job: Job, _args: Nothing) -> NetworkCheck:
        """Serve `check_network`: leaks on this host."""
        return NetworkCheck(findings=tuple(self._findings()))

    # -- the loop

    async def keep(self) -> None:
        """Compare kernel and records whenever something moved, and every five seconds; for ever."""
        moved = asyncio.Event()
        memory = self._memory
        for mirror in (memory.networks, memory.addresses, memory.containers):
            mirror.listen(lambda _key, _entry: moved.set())
        swept_s = 0.0
        while True:
            moved.clear()
            began_s = self._chassis.clock.monotonic_s()
            is_full = began_s - swept_s > _PASS_EVERY_S
            await self.reconcile(sweep=is_full)
            took_s = self._chassis.clock.monotonic_s() - began_s
            if is_full:
                swept_s = began_s + took_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PASS_EVERY_S):
                    await moved.wait()
                    await asyncio.sleep(min(max(_SETTLE_S, _REST * took_s), _LONGEST_REST_S))

    async def reconcile(self, *, sweep: bool = True) -> None:
        """One pass; with `sweep` also over the links of the kernel and what nobody released."""
        if sweep:
            await self.attempts.release_stale()
        await self.attempts.follow_names()
        await self._fabric.reconcile(sweep=sweep)

    def directory(self) -> Directory:
        """Names of the fleet as DNS answers them; built again when the memory has moved."""
        memory = self._memory
        at = (memory.addresses.revision, memory.networks.revision)
        if at != self._names_at:
            names = {network.id: network.name for network in memory.networks.values()}
            self._names = Directory.of(memory.addresses.values(), names)
            self._names_at = at
        return self._names

    def _resolvers(self, asker: str, network: NetworkId | None) -> Resolvers:
        """Those that the asking container was given, asked from its own namespace; else the host's."""
        holder = self.directory().holder(asker, network)
        if holder is not None and holder.host == self._me:
            key = container_key(holder.tenant, holder.container)
            record = self._memory.containers.get(key)
            if record is not None and record.spec.dns:
                return Resolvers(record.spec.dns, partial(self._open_at, holder.container))
        return Resolvers(resolving.of_host())

    async def _open_at(self, container: ContainerId, family: int, kind: int) -> socket.socket:
        """Open a socket in a container's namespace. Raises OSError."""
        name = naming.namespace(self._settings.tag, container)
        opened = partial(socket.socket, family, kind)
        return await self._kernel.in_thread(self._kernel.namespaces.inside, name, opened)

    def _findings(self) -> list[str]:
        tag = self._settings.tag
        known = {naming.namespace(tag, record.id) for record in self._memory.containers.values()}
        found = [
            f"network namespace {name} belongs to no container"
            for name in sorted(self._kernel.namespaces.names() - known)
            if not naming.is_router(tag, name)
        ]
        found += [f"link {name} belongs to no network" for name in self._fabric.leftovers()]
        observed = self._memory.seen()
        for container in self.attempts.ports.published():
            seen = observed.get(container)
            if seen is None or (wanted.is_over(None, seen, seen.run) and seen.endpoints == ()):
                found.append(f"ports of {container} are published but it does not run")
        return found
