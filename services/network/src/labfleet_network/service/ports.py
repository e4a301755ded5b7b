"""Published ports of one namespace: held, and led by nftables; the kernel state is rebuilt on start."""

import contextlib
from dataclasses import dataclass

from labfleet_network.adapters.holders import Holders
from labfleet_network.adapters.nft import Nft
from labfleet_network.core import firewall
from labfleet_network.metrics import PORTS
from labfleet_proto.errors import InternalError
from labfleet_proto.ids import ContainerId, TenantId
from labfleet_proto.networks import PublishedPort


@dataclass(frozen=True)
class Publication:
    """The ports of one attempt, and where they lead."""

    tenant: TenantId
    attempt: int
    target: str
    ports: tuple[PublishedPort, ...]
    keeps_host_port: bool
    """The target listens on the host port (a host behind the entry), not on the container's."""


class Ports:
    """All published ports here. Not for several threads."""

    def __init__(self, nft: Nft, table: str, *, holds: bool = True) -> None:
        self._nft = nft
        self._holds = holds
        """Whether other programs of this namespace must see the ports as taken."""
        self._table = table
        self._holders = Holders()
        self._known: dict[ContainerId, Publication] = {}

    def published(self) -> dict[ContainerId, Publication]:
        """What is published now."""
        return dict(self._known)

    async def publish(self, container: ContainerId, wanted: Publication) -> None:
        """Publish all ports or none; the same again is nothing.

        Raises PortInUseError, InternalError.
        """
        known = self._known.get(container)
        if known == wanted:
            return
        if known is not None:
            await self.withdraw(container, known.attempt)
        held: list[PublishedPort] = []
        try:
            for port in wanted.ports:
                if self._holds and port.protocol != "sctp":  # the kernel may have no such sockets
                    self._holders.hold(port)
                    held.append(port)
            commands = "".join(
                firewall.add_port(
                    self._table,
                    port,
                    wanted.target,
                    port.host_port if wanted.keeps_host_port else port.container_port,
                )
                for port in wanted.ports
            )
            if commands:
                await self._nft.command(commands)
        except BaseException:
            for port in held:
                self._holders.let_go(port)
            raise
        self._known[container] = wanted
        self._count()

    async def withdraw(self, container: ContainerId, attempt: int) -> None:
        """End the ports of this attempt or an older one; unknown is success."""
        known = self._known.get(container)
        if known is None or known.attempt > attempt:
            return
        del self._known[container]
        for port in known.ports:
            with contextlib.suppress(InternalError):  # the table was rebuilt: it is gone already
                await self._nft.command(firewall.delete_port(self._table, port))
            self._holders.let_go(port)
        self._count()

    def _count(self) -> None:
        PORTS.set(sum(len(each.ports) for each in self._known.values()))
