"""What this host's kernel should have, from the fleet's memory: pure comparisons."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from labfleet_proto.buckets import container_key
from labfleet_proto.builds import is_build
from labfleet_proto.containers import ContainerRecord, Goal, Observation, State
from labfleet_proto.ids import ContainerId, HostId, NetworkId
from labfleet_proto.networks import AddressRecord, PublishedPort


@dataclass(frozen=True)
class Remote:
    """A container on another host, by network."""

    network: NetworkId
    address: str
    mac: str
    vtep: str


def is_over(record: ContainerRecord | None, seen: Observation | None, attempt: int) -> bool:
    """Whether an attempt can no longer need its network.

    An attempt that was allocated but is not observed yet is on its way: it is not over.
    """
    if record is None:
        return True
    if seen is None:
        return False
    return (seen.run, seen.state) >= (attempt, State.EXITED) or seen.state is State.REMOVED


def stale_addresses(
    addresses: Mapping[str, AddressRecord],
    records: Mapping[str, ContainerRecord],
    observed: Mapping[ContainerId, Observation],
    me: HostId,
) -> list[str]:
    """Keys of this host's addresses whose attempt is over."""
    return [
        key
        for key, each in addresses.items()
        if each.host == me
        and not is_build(each.container)
        and is_over(
            records.get(container_key(each.tenant, each.container)),
            observed.get(each.container),
            each.attempt,
        )
    ]


def is_named(owner: ContainerRecord, address: AddressRecord) -> bool:
    """Whether an address carries the name that its container has now."""
    return not address.names or address.names[0] == owner.name


def names_now(owner: ContainerRecord, address: AddressRecord) -> tuple[str, ...]:
    """Names of an address with its container's name of now; a hostname stays, a former name goes."""
    if is_named(owner, address):
        return address.names
    former, *others = address.names
    hostname = [former] if former == owner.spec.hostname else []
    return tuple(dict.fromkeys((owner.name, *hostname, *others)))


def remotes(
    addresses: Iterable[AddressRecord], here: set[NetworkId], me: HostId
) -> dict[NetworkId, set[Remote]]:
    """Containers of other hosts in the networks that this host takes part in."""
    found: dict[NetworkId, set[Remote]] = {network: set() for network in here}
    for each in addresses:
        if each.host != me and each.network in here:
            found[each.network].add(Remote(each.network, each.address, each.mac, each.vtep))
    return found


def ports_of(record: ContainerRecord) -> tuple[PublishedPort, ...]:
    """Published ports of a container, those whose host port is known."""
    return tuple(
        PublishedPort(
            host_address=port.host_address,
            host_port=port.host_port,
            protocol=port.protocol,
            container_port=port.container_port,
        )
        for port in record.spec.ports
        if port.host_port is not None
    )


def publishing(record: ContainerRecord, seen: Observation | None) -> bool:
    """Whether a container's ports must be led now: it runs."""
    return (
        record.goal is not Goal.REMOVED
        and seen is not None
        and seen.state in (State.RUNNING, State.STOPPING)
        and bool(record.spec.ports)
    )
