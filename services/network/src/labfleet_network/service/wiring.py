"""Interfaces between a container's namespace and the bridges of its host."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from labfleet_network.adapters import rtnetlink
from labfleet_network.adapters.rtnetlink import Interface
from labfleet_network.core import addresses as rules
from labfleet_network.core import firewall, naming
from labfleet_network.service.fabric import Fabric
from labfleet_network.service.kernel import Kernel
from labfleet_network.service.places import Place
from labfleet_network.settings import Settings
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import ContainerId
from labfleet_proto.networks import AddressRecord, NetworkRecord


class Wiring:
    """Plugs containers in; the addresses are claimed and the bridges made before."""

    def __init__(self, kernel: Kernel, settings: Settings, fabric: Fabric) -> None:
        self._kernel = kernel
        self._settings = settings
        self._fabric = fabric

    async def plug(
        self,
        container: ContainerId,
        networks: Sequence[NetworkRecord],
        places: Sequence[Place],
        way_out: int | None = None,
    ) -> None:
        """Make the interface of each place in its network. Raises InternalError.

        `way_out`: position of the network that leads out; None: none of these.
        """
        await self._kernel.in_thread(self._plug_now, container, networks, places, way_out)

    async def set_sysctls(self, container: ContainerId, settings: Mapping[str, str]) -> None:
        """Set what a container asks of its network namespace. Raises InvalidRequestError."""
        if not settings:
            return
        name = naming.namespace(self._settings.tag, container)

        def inside() -> None:
            for key, value in settings.items():
                path = naming.sysctl_path(key)
                try:
                    Path(path).write_text(value)
                except OSError as exc:
                    raise InvalidRequestError(
                        f"HostConfig.Sysctls: {key}={value}: {exc.strerror}"
                    ) from exc

        await self._kernel.in_thread(self._kernel.namespaces.inside, name, inside)

    async def unplug(self, record: AddressRecord) -> None:
        """Take an interface out of a running container; absent is success."""
        veth = naming.veth(self._settings.tag, record.container, record.network)
        await self._kernel.in_thread(self._kernel.links.delete, veth)

    async def set_way_out(
        self, container: ContainerId, network: NetworkRecord, place: Place
    ) -> None:
        """Lead what leaves a running container through a network's gateways. Raises InternalError."""
        name = naming.namespace(self._settings.tag, container)
        pool = rules.pool6(network) if place.address6 else None
        ways = (network.gateway, pool.gateway if pool is not None else "", place.record.interface)

        def work() -> None:
            self._kernel.namespaces.inside(name, lambda: rtnetlink.set_way_out(*ways))

        await self._kernel.in_thread(work)

    def _plug_now(
        self,
        container: ContainerId,
        networks: Sequence[NetworkRecord],
        places: Sequence[Place],
        way_out: int | None,
    ) -> None:
        tag, kernel = self._settings.tag, self._kernel
        name = naming.namespace(tag, container)
        interfaces = [
            self._interface(container, network, place, is_way_out=number == way_out)
            for number, (network, place) in enumerate(zip(networks, places, strict=True))
        ]
        if not interfaces:
            return
        kernel.nft.run(
            "".join(
                firewall.add_source(tag, each.veth, each.mac, *each.addresses)
                for each in interfaces
            )
        )
        kernel.namespaces.plug(name, interfaces)
        kernel.namespaces.inside(name, lambda: rtnetlink.configure(interfaces))

    def _interface(
        self, container: ContainerId, network: NetworkRecord, place: Place, *, is_way_out: bool
    ) -> Interface:
        record, pool = place.record, rules.pool6(network) if place.address6 else None
        return Interface(
            veth=naming.veth(self._settings.tag, container, network.id),
            bridge=self._fabric.bridge(network.id),
            name=record.interface,
            mac=record.mac,
            address=record.address,
            prefix_len=rules.prefix_len(network),
            gateway=network.gateway if is_way_out else "",
            mtu=self._fabric.mtu,
            more=record.link_local,
            address6=place.address6,
            prefix_len6=rules.prefix_len6(pool),
            gateway6=pool.gateway if pool is not None and is_way_out else "",
        )
