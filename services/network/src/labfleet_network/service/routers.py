"""Routers: a namespace for each network whose subnet the client chose, between its bridge and the host.

The host never has a route into such a subnet, so it may be any: another tenant's, the underlay's, the
Internet's. The router holds the gateway address, answers DNS there, and leads what goes out through
the network's transit addresses, which are the fleet's own.
"""

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import IPv4Network

from labfleet_network.adapters import rtnetlink
from labfleet_network.adapters.dns import bound
from labfleet_network.adapters.links import set_sysctl
from labfleet_network.adapters.nft import Nft
from labfleet_network.adapters.rtnetlink import Interface
from labfleet_network.core import addresses as rules
from labfleet_network.core import firewall, naming
from labfleet_network.service.kernel import Kernel
from labfleet_network.service.ports import Ports
from labfleet_network.settings import Settings
from labfleet_proto.errors import InternalError
from labfleet_proto.ids import NetworkId
from labfleet_proto.networks import NetworkRecord

_TRANSIT_PREFIX = 30


@dataclass(frozen=True)
class Router:
    """One network's router on this host."""

    address: str
    """Its own transit address: what comes in for the network is sent there."""
    ports: Ports
    sockets: tuple[socket.socket, socket.socket]
    """For DNS on the gateway address, UDP and TCP."""
    nft: Nft
    """Lives in the router's namespace, and keeps it alive until it is closed."""


class Routers:
    """The routers of this host; they are made anew when the service starts."""

    def __init__(self, kernel: Kernel, settings: Settings) -> None:
        self._kernel = kernel
        self._settings = settings
        self._known: dict[NetworkId, Router] = {}

    def get(self, network: NetworkId) -> Router | None:
        """The router of a network; None if it has none here."""
        return self._known.get(network)

    def all(self) -> list[Router]:
        """Every router here."""
        return list(self._known.values())

    async def make(self, network: NetworkRecord, bridge: int, mtu: int) -> Router:
        """Make a network's router, in place of one of an earlier life. Raises InternalError."""
        await self.drop(network.id)
        router = await self._kernel.in_thread(self._make, network, bridge, mtu)
        self._known[network.id] = router
        return router

    def _make(self, network: NetworkRecord, bridge: int, mtu: int) -> Router:
        tag, kernel, pool = self._settings.tag, self._kernel, rules.pool6(network)
        name = naming.router(tag, network.id)
        kernel.namespaces.remove(name)
        kernel.namespaces.give(kernel.namespaces.make(), name)
        host, own = (str(each) for each in list(IPv4Network(network.transit).hosts())[:2])
        lan = Interface(
            veth=naming.lan(tag, network.id),
            bridge=bridge,
            name="lan",
            mac=rules.gateway_mac(network),
            address=network.gateway,
            prefix_len=rules.prefix_len(network),
            gateway="",
            mtu=mtu,
            address6=pool.gateway if pool is not None else "",
            prefix_len6=rules.prefix_len6(pool),
        )
        out = Interface(
            veth=naming.transit(tag, network.id),
            bridge=0,
            name="out",
            mac=rules.mac_of(own),
            address=own,
            prefix_len=_TRANSIT_PREFIX,
            gateway=host,
            mtu=mtu,
        )
        kernel.namespaces.plug(name, [lan, out])
        index = kernel.links.index(out.veth)
        if index is None:
            raise InternalError(f"link {out.veth} vanished while it was made")
        kernel.links.give_address(index, host, _TRANSIT_PREFIX)

        def inside() -> tuple[Nft, tuple[socket.socket, socket.socket]]:
            set_sysctl("ipv4/ip_forward", "1")
            set_sysctl("ipv4/conf/all/rp_filter", "0")
            rtnetlink.configure([out, lan])
            if pool is not None:  # there is no way out: who tries is told so at once
                set_sysctl("ipv6/conf/all/forwarding", "1")
            nft = Nft()  # its netlink socket is of the namespace that it is made in
            try:
                nft.run(firewall.router_table(is_open=not network.is_internal))
                return nft, bound(network.gateway)
            except (OSError, InternalError) as exc:
                nft.close()
                raise InternalError(f"router of network {network.name}: {exc}") from exc

        nft, sockets = kernel.namespaces.inside(name, inside)
        return Router(own, Ports(nft, firewall.ROUTER, holds=False), sockets, nft)

    async def drop(self, network: NetworkId) -> None:
        """Take a network's router away; absent is success."""
        router = self._known.pop(network, None)
        if router is not None:
            await asyncio.to_thread(router.nft.close)
            name = naming.router(self._settings.tag, network)
            await self._kernel.in_thread(self._kernel.namespaces.remove, name)
