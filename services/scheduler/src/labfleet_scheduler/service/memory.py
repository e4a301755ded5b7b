"""The fleet's memory as the scheduler mirrors it."""

from dataclasses import dataclass

from labfleet_chassis.mirror import Mirror
from labfleet_chassis.service import Chassis
from labfleet_proto import buckets
from labfleet_proto.containers import ContainerRecord, NameRecord, Observation, VolumeRecord
from labfleet_proto.host_policies import HostPolicy
from labfleet_proto.hosts import HostRecord, Lease
from labfleet_proto.layers import LayerCopy


@dataclass
class Memory:
    """Mirrors of what placement and promises need to know."""

    containers: Mirror[ContainerRecord]
    names: Mirror[NameRecord]
    observed: Mirror[Observation]
    hosts: Mirror[HostRecord]
    leases: Mirror[Lease]
    volumes: Mirror[VolumeRecord]
    policies: Mirror[HostPolicy]
    layer_copies: Mirror[LayerCopy]

    @classmethod
    async def open(cls, chassis: Chassis) -> "Memory":
        """Mirror all buckets that matter here."""
        return cls(
            await chassis.mirror(buckets.CONTAINERS),
            await chassis.mirror(buckets.NAMES),
            await chassis.mirror(buckets.OBSERVED),
            await chassis.mirror(buckets.HOSTS),
            await chassis.mirror(buckets.LEASES),
            await chassis.mirror(buckets.VOLUMES),
            await chassis.mirror(buckets.HOST_POLICIES),
            await chassis.mirror(buckets.LAYER_COPIES),
        )

    async def catch_up(self) -> None:
        """Wait until every mirror shows all that was written before now, as by a predecessor."""
        for mirror in (self.containers, self.names, self.observed, self.volumes):
            await mirror.wait_for(await mirror.bucket.last_revision())
