"""The networks that this host takes part in: bridge, tunnel, forwarding entries, firewall, DNS."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from labfleet_network.adapters.dns import DnsServer
from labfleet_network.adapters.links import Neighbour
from labfleet_network.core import addresses as rules
from labfleet_network.core import firewall, naming, wanted
from labfleet_network.service.kernel import Kernel
from labfleet_network.service.memory import Memory
from labfleet_network.service.routers import Routers
from labfleet_network.settings import Settings
from labfleet_proto.ids import HostId, NetworkId
from labfleet_proto.networks import NetworkRecord

_VXLAN_OVERHEAD = 50


class Fabric:
    """Makes networks when a container here needs them, and takes them away when none does."""

    def __init__(self, memory: Memory, kernel: Kernel, settings: Settings, dns: DnsServer) -> None:
        self._memory = memory
        self._kernel = kernel
        self._settings = settings
        self._dns = dns
        self._me = HostId(settings.host)
        self._lock = asyncio.Lock()
        self._devices: dict[NetworkId, tuple[int, int]] = {}
        """Index of bridge and tunnel."""
        self._taught: dict[NetworkId, set[Neighbour]] = {}
        self._users: dict[NetworkId, int] = {}
        self.routers = Routers(kernel, settings)
        self.mtu = settings.underlay_mtu - _VXLAN_OVERHEAD

    @contextlib.contextmanager
    def using(self, networks: Sequence[NetworkRecord]) -> Iterator[None]:
        """Keep networks while a container is being connected, whose address is not written yet."""
        for network in networks:
            self._users[network.id] = self._users.get(network.id, 0) + 1
        try:
            yield
        finally:
            for network in networks:
                self._users[network.id] -= 1

    def _in_use(self) -> set[NetworkId]:
        return {network for network, users in self._users.items() if users > 0}

    def bridge(self, network: NetworkId) -> int:
        """Index of the bridge of a network that `ensure` has made."""
        return self._devices[network][0]

    async def ensure(self, network: NetworkRecord) -> None:
        """Have the network on this host; again is nothing. Raises InternalError."""
        if network.id in self._devices:
            return
        async with self._lock:
            if network.id not in self._devices:
                devices = await asyncio.to_thread(self._make, network)
                sockets = None
                if network.transit:
                    router = await self.routers.make(network, devices[0], self.mtu)
                    sockets = router.sockets
                await self._dns.listen(network.gateway, network.id, sockets)
                self._devices[network.id] = devices
                await self._kernel.nft.command(self._admission(network))
                await self._teach(network.id)

    def _make(self, network: NetworkRecord) -> tuple[int, int]:
        settings, links = self._settings, self._kernel.links
        mac, address = rules.gateway_mac(network), network.gateway
        if network.transit:  # both are the router's
            mac, address = rules.mac_of(network.transit.partition("/")[0]), ""
        bridge = links.ensure_bridge(
            naming.bridge(settings.tag, network.id),
            mac,
            address,
            rules.prefix_len(network),
            self.mtu,
        )
        tunnel = links.ensure_vxlan(
            naming.vxlan(settings.tag, network.id),
            network.vni,
            bridge,
            {
                "local": settings.address,
                "port": settings.vxlan_port,
                "link": links.index(settings.underlay_interface),
                "mtu": self.mtu,
            },
        )
        return bridge, tunnel

    def admissions(self) -> str:
        """Commands that let the host lead what comes from the networks of containers here."""
        here = {each.network for each in self._memory.addresses.values() if each.host == self._me}
        networks = (self._memory.networks.get(network) for network in sorted(here))
        return "".join(self._admission(network) for network in networks if network is not None)

    def _admission(self, network: NetworkRecord) -> str:
        """Commands that let the host lead what comes from the network, or from its router."""
        tag = self._settings.tag
        door, subnet = naming.bridge(tag, network.id), network.subnet
        if network.transit:
            door, subnet = naming.transit(tag, network.id), network.transit
        return firewall.add_network(
            f"{tag}-host",
            door,
            subnet,
            is_open=not network.is_internal,
            is_router=bool(network.transit),
        )

    async def reconcile(self, *, sweep: bool) -> None:
        """Make networks and their entries equal to the addresses that the fleet knows.

        With `sweep` also over the kernel's own list of links, which costs a dump of them all.
        """
        here = self._in_use() | {
            each.network for each in self._memory.addresses.values() if each.host == self._me
        }
        for network in here:
            record = self._memory.networks.get(network)
            if record is not None:
                await self.ensure(record)
                await self._teach(network)
        if sweep or self._devices.keys() - here:
            await self._drop_unused(here)

    async def _teach(self, network: NetworkId) -> None:
        """Make forwarding and neighbour entries equal to the other hosts' containers."""
        if network not in self._devices:
            return
        remote = wanted.remotes(self._memory.addresses.values(), {network}, self._me)[network]
        target = {Neighbour(each.address, each.mac, each.vtep) for each in remote}
        target |= {
            Neighbour(rules.link_local6(each.mac), each.mac, each.vtep)
            for each in remote
            if rules.is_ipv6(each.address)
        }
        bridge, tunnel = self._devices[network]
        links = self._kernel.links
        if network not in self._taught:
            self._taught[network] = await asyncio.to_thread(links.learned, tunnel, bridge)
        known = self._taught[network]
        for one in known - target:
            keeps = any((each.mac, each.vtep) == (one.mac, one.vtep) for each in target)
            await asyncio.to_thread(partial(links.unteach, tunnel, bridge, one, keeps_frames=keeps))
        for one in target - known:
            await asyncio.to_thread(links.teach, tunnel, bridge, one)
        self._taught[network] = target

    async def _drop_unused(self, here: set[NetworkId]) -> None:
        """Take bridges away that no container here needs any more."""
        links = self._kernel.links
        async with self._lock:
            needed = here | self._in_use()
            for network in self._devices.keys() - needed:
                del self._devices[network]
                self._taught.pop(network, None)
                self._dns.quiet(network)
                await self.routers.drop(network)
            for name in await asyncio.to_thread(self._links_of_others, needed):
                await asyncio.to_thread(links.delete, name)

    def _links_of_others(self, networks: Iterable[NetworkId]) -> list[str]:
        """Links of the fleet on this host that belong to none of these networks."""
        tag = self._settings.tag
        known = {link(tag, each) for each in networks for link in naming.NETWORK_LINKS}
        found = self._kernel.links.names(tag)
        return sorted(name for name in found - known if naming.is_of_network(tag, name))

    def leftovers(self) -> list[str]:
        """Links of networks that the fleet does not know: a leak."""
        return self._links_of_others(each.id for each in self._memory.networks.values())
