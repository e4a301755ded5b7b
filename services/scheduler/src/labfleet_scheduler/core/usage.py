"""What the containers of each host take, kept up to date container by container.

The scheduler counts from the records themselves, by the rule that the hosts share (`takes_room`): a
host's published free vector is late by up to a second, and a class that starts at once would pile
up on one host meanwhile.
"""

from dataclasses import dataclass, field

from labfleet_proto.containers import ContainerRecord, Goal, Observation, State
from labfleet_proto.ids import ContainerId, HostId
from labfleet_proto.placement import takes_room
from labfleet_proto.resources import Resources

Port = tuple[str, int]
"""Protocol and host port."""


@dataclass(frozen=True)
class _Share:
    """What one container takes of its host now."""

    host: HostId
    resources: Resources
    ports: frozenset[Port]


@dataclass
class Usage:
    """Sums by host. Noting the same facts again changes nothing."""

    _shares: dict[ContainerId, _Share] = field(default_factory=dict)
    _used: dict[HostId, Resources] = field(default_factory=dict)

    def note(self, record: ContainerRecord, seen: Observation | None) -> None:
        """Take a container's newest record and observation."""
        self.forget(record.id)
        if seen is not None and seen.state is State.REMOVED:
            return
        takes = takes_room(record, seen)
        ports = frozenset(
            (each.protocol, each.host_port)
            for each in record.spec.ports
            if each.host_port is not None and takes and record.goal is not Goal.CREATED
        )
        host = record.assignment.host
        resources = record.spec.resources() if takes else Resources()
        self._shares[record.id] = _Share(host, resources, ports)
        self._used[host] = self.used(host) + resources

    def forget(self, container: ContainerId) -> None:
        """The container is gone; unknown is nothing."""
        share = self._shares.pop(container, None)
        if share is not None:
            self._used[share.host] = self.used(share.host) - share.resources

    def knows(self, container: ContainerId) -> bool:
        """Whether its record was noted."""
        return container in self._shares

    def used(self, host: HostId) -> Resources:
        """What the host's containers take."""
        return self._used.get(host, Resources())

    def ports(self) -> dict[HostId, set[Port]]:
        """Published ports in use, by host; of containers that were not started yet none."""
        found: dict[HostId, set[Port]] = {}
        for share in self._shares.values():
            if share.ports:
                found.setdefault(share.host, set()).update(share.ports)
        return found
