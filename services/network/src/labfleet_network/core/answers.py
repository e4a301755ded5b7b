"""DNS answers from the addresses of the fleet: pure look-ups, no wire format."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

from labfleet_proto.ids import ContainerId, NetworkId
from labfleet_proto.networks import AddressRecord


@dataclass
class Directory:
    """Names and addresses by network; names are compared without case."""

    _by_name: dict[tuple[NetworkId, str], set[str]] = field(default_factory=dict)
    _by_address: dict[str, list[AddressRecord]] = field(default_factory=dict)
    _of_container: dict[ContainerId, set[NetworkId]] = field(default_factory=dict)
    _records: dict[ContainerId, list[AddressRecord]] = field(default_factory=dict)
    _networks: dict[NetworkId, str] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[AddressRecord], names: dict[NetworkId, str]) -> "Directory":
        """Build from all addresses and the networks' names."""
        made = cls(_networks=dict(names))
        for record in records:
            made._by_address.setdefault(record.address, []).append(record)
            made._records.setdefault(record.container, []).append(record)
            made._of_container.setdefault(record.container, set()).add(record.network)
            for name in record.names:
                made._by_name.setdefault((record.network, name.lower()), set()).add(record.address)
        return made

    def _holders(self, address: str, network: NetworkId | None) -> list[AddressRecord]:
        """Records of an address; `network` is the one that it was seen in, None if that is not known."""
        there = self._by_address.get(address, ())
        return [each for each in there if network is None or each.network == network]

    def networks_of(self, address: str, network: NetworkId | None = None) -> set[NetworkId]:
        """Networks of the container that holds `address`."""
        found: set[NetworkId] = set()
        for record in self._holders(address, network):
            found |= self._of_container[record.container]
        return found

    def holder(self, address: str, network: NetworkId | None = None) -> AddressRecord | None:
        """Who asks from an address; None if that is nobody's, or may be several's."""
        found = self._holders(address, network)
        return found[0] if len(found) == 1 else None

    def _linked(self, asker: str, network: NetworkId | None, name: str) -> set[str]:
        """Addresses of a name that only the asker knows."""
        found: set[str] = set()
        for holder in self._holders(asker, network):
            for own in self._records_of(holder.container):
                target = own.links.get(name, "").lower()
                found |= self._by_name.get((own.network, target), set())
        return found

    def _records_of(self, container: ContainerId) -> list[AddressRecord]:
        return self._records.get(container, [])

    def forward(self, asker: str, name: str, network: NetworkId | None = None) -> list[str] | None:
        """Addresses of a name as the holder of `asker` sees it; None if it is no name of ours.

        `network` is the one that the question came in by, where that is known.
        """
        wanted = name.rstrip(".").lower()
        found = self._linked(asker, network, wanted)
        for each_network in self.networks_of(asker, network):
            suffix = "." + self._networks.get(each_network, "").lower()
            plain = wanted.removesuffix(suffix) if len(suffix) > 1 else wanted
            for each in (wanted, plain):
                found |= self._by_name.get((each_network, each), set())
        return sorted(found, key=_in_order) if found else None

    def reverse(
        self, asker: str, address: str, network: NetworkId | None = None
    ) -> list[str] | None:
        """Name of an address, `<container>.<network>`; None if the asker has no network with it."""
        mine = self.networks_of(asker, network)
        names = [
            f"{record.names[0]}.{self._networks.get(record.network, 'local')}"
            for record in self._by_address.get(address, ())
            if record.network in mine and record.names
        ]
        return names or None


def _in_order(address: str) -> tuple[int, int]:
    """IPv4 first, then by number."""
    parsed = ip_address(address)
    return parsed.version, int(parsed)
