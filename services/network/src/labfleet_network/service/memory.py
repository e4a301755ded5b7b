"""The fleet's memory as the network service mirrors it."""

from dataclasses import dataclass

from labfleet_chassis.mirror import Mirror
from labfleet_chassis.service import Chassis
from labfleet_network.core import wanted
from labfleet_proto import buckets
from labfleet_proto.buckets import container_key, observed_key
from labfleet_proto.builds import is_build
from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import ContainerId, TenantId
from labfleet_proto.networks import AddressRecord, NetworkRecord


@dataclass
class Lives:
    """Mirrors that tell which attempts of containers need their network."""

    containers: Mirror[ContainerRecord]
    observed: Mirror[Observation]
    hosts: Mirror[HostRecord]

    @classmethod
    async def of(cls, chassis: Chassis) -> "Lives":
        """Mirror what the fleet's entry needs to know."""
        return cls(
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

    async def is_over(self, tenant: TenantId, container: ContainerId, attempt: int) -> bool:
        """Whether an attempt can no longer need its network.

        A record that the mirror does not show may be too new for it: then the store itself is asked.
        Raises UnavailableError.
        """
        if is_build(container):
            return False  # its agent releases it
        key = container_key(tenant, container)
        record = self.containers.get(key)
        if record is None and await self.containers.bucket.get(key) is not None:
            return False
        if record is None:
            return True
        seen = self.observed.get(observed_key(record.assignment.host, container))
        return wanted.is_over(record, seen, attempt)

    def records(self) -> dict[str, ContainerRecord]:
        """Container records by key."""
        return {key: entry.value for key, entry in self.containers.entries.items()}


@dataclass
class Memory(Lives):
    """Mirrors of what the network service of a host needs to know."""

    networks: Mirror[NetworkRecord]
    addresses: Mirror[AddressRecord]

    @classmethod
    async def open(cls, chassis: Chassis) -> "Memory":
        """Mirror all buckets that matter here."""
        lives = await Lives.of(chassis)
        return cls(
            lives.containers,
            lives.observed,
            lives.hosts,
            await chassis.mirror(buckets.NETWORKS),
            await chassis.mirror(buckets.ADDRESSES),
        )
