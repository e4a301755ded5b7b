"""The fleet's memory as the network service mirrors it."""

from dataclasses import dataclass

from labfleet_chassis.service import Chassis
from labfleet_chassis.store import Mirror
from labfleet_proto import buckets
from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import ContainerId
from labfleet_proto.networks import AddressRecord, NetworkRecord


@dataclass
class Memory:
    """Mirrors of what the network needs to know."""

    networks: Mirror[NetworkRecord]
    addresses: Mirror[AddressRecord]
    containers: Mirror[ContainerRecord]
    observed: Mirror[Observation]
    hosts: Mirror[HostRecord]

    @classmethod
    async def open(cls, chassis: Chassis) -> "Memory":
        """Mirror all buckets that matter here."""
        return cls(
            await chassis.mirror(buckets.NETWORKS),
            await chassis.mirror(buckets.ADDRESSES),
            await chassis.mirror(buckets.CONTAINERS),
            await chassis.mirror(buckets.OBSERVED),
            await chassis.mirror(buckets.HOSTS),
        )

    def seen(self) -> dict[ContainerId, Observation]:
        """The greatest observation of each container."""
        found: dict[ContainerId, Observation] = {}
        for each in self.observed.values():
            known = found.get(each.id)
            if known is None or known.order() < each.order():
                found[each.id] = each
        return found

    def records(self) -> dict[str, ContainerRecord]:
        """Container records by key."""
        return {key: entry.value for key, entry in self.containers.entries.items()}
