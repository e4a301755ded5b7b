"""DNS answers from the addresses of the fleet: pure look-ups, no wire format."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from labfleet_proto.ids import ContainerId, NetworkId
from labfleet_proto.networks import AddressRecord


@dataclass
class Directory:
    """Names and addresses by network; names are compared without case."""

    _by_name: dict[tuple[NetworkId, str], set[str]] = field(default_factory=dict)
    _by_address: dict[str, list[AddressRecord]] = field(default_factory=dict)
    _of_container: dict[ContainerId, set[NetworkId]] = field(default_factory=dict)
    _networks: dict[NetworkId, str] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[AddressRecord], names: dict[NetworkId, str]) -> "Directory":
        """Build from all addresses and the networks' names."""
        made = cls(_networks=dict(names))
        for record in records:
            made._by_address.setdefault(record.address, []).append(record)
            made._of_container.setdefault(record.container, set()).add(record.network)
            for name in record.names:
                made._by_name.setdefault((record.network, name.lower()), set()).add(record.address)
        return made

    def networks_of(self, address: str) -> set[NetworkId]:
        """Networks of the container that holds `address`."""
        found: set[NetworkId] = set()
        for record in self._by_address.get(address, ()):
            found |= self._of_container[record.container]
        return found

    def forward(self, asker: str, name: str) -> list[str] | None:
        """Addresses of a name as the holder of `asker` sees it; None if it is no name of ours."""
        wanted = name.rstrip(".").lower()
        found: set[str] = set()
        for network in self.networks_of(asker):
            suffix = "." + self._networks.get(network, "").lower()
            plain = wanted.removesuffix(suffix) if len(suffix) > 1 else wanted
            for each in (wanted, plain):
                found |= self._by_name.get((network, each), set())
        return sorted(found, key=IPv4Address) if found else None

    def reverse(self, asker: str, address: str) -> list[str] | None:
        """Name of an address, `<container>.<network>`; None if the asker has no network with it."""
        mine = self.networks_of(asker)
        names = [
            f"{record.names[0]}.{self._networks.get(record.network, 'local')}"
            for record in self._by_address.get(address, ())
            if record.network in mine and record.names
        ]
        return names or None
