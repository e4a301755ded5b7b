"""Interfaces between a container's namespace and the bridges of its host."""

import os
from collections.abc import Sequence

from labfleet_network.adapters import rtnetlink
from labfleet_network.adapters.rtnetlink import Interface
from labfleet_network.core import addresses as rules
from labfleet_network.core import firewall, naming
from labfleet_network.service.fabric import Fabric
from labfleet_network.service.kernel import Kernel
from labfleet_network.settings import Settings
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
        records: Sequence[AddressRecord],
    ) -> None:
        """Make one interface for each network, `eth0` first. Raises InternalError."""
        await self._kernel.in_thread(self._plug_now, container, networks, records)

    def _plug_now(
        self,
        container: ContainerId,
        networks: Sequence[NetworkRecord],
        records: Sequence[AddressRecord],
    ) -> None:
        tag, kernel = self._settings.tag, self._kernel
        name = naming.namespace(tag, container)
        interfaces = [
            Interface(
                veth=naming.veth(tag, container, network.id),
                bridge=self._fabric.bridge(network.id),
                name=f"eth{number}",
                mac=record.mac,
                address=record.address,
                prefix_len=rules.prefix_len(network),
                gateway="" if network.is_internal else network.gateway,
                mtu=self._fabric.mtu,
            )
            for number, (network, record) in enumerate(zip(networks, records, strict=True))
        ]
        if not interfaces:
            return
        namespace = os.open(str(kernel.namespaces.path(name)), os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.nft.run(
                "".join(firewall.add_source(tag, i.veth, i.mac, i.address) for i in interfaces)
            )
            rtnetlink.plug(interfaces, namespace)
        finally:
            os.close(namespace)
        kernel.namespaces.inside(name, lambda: rtnetlink.configure(interfaces))
