"""A container's places in its networks, from the addresses that it holds."""

from collections.abc import Iterable
from dataclasses import dataclass

from labfleet_network.core import addresses as rules
from labfleet_network.service.addresses import Claim
from labfleet_proto.networks import AddressRecord, Endpoint, InterfaceWish, NetworkRecord


@dataclass(frozen=True)
class Place:
    """One interface: its IPv4 address, which is always there, and the one of IPv6 beside."""

    record: AddressRecord
    address6: str = ""


def main_claims(claims: Iterable[Claim]) -> list[Claim]:
    """Those that stand for an interface each."""
    return [claim for claim in claims if not rules.is_ipv6(claim.record.address)]


def places(claims: Iterable[Claim]) -> list[Place]:
    """The interfaces of a container, in the order of its claims."""
    every = list(claims)
    of_six = {
        claim.record.network: claim.record.address
        for claim in every
        if rules.is_ipv6(claim.record.address)
    }
    return [
        Place(claim.record, of_six.get(claim.record.network, "")) for claim in main_claims(every)
    ]


def endpoint(wish: InterfaceWish, network: NetworkRecord, place: Place) -> Endpoint:
    """What the agent is told of an interface."""
    record, pool = place.record, rules.pool6(network) if place.address6 else None
    return Endpoint(
        network=network.id,
        network_name=wish.network_name,
        address=record.address,
        prefix_len=rules.prefix_len(network),
        mac=record.mac,
        gateway="" if network.is_internal else network.gateway,
        interface=record.interface,
        aliases=wish.aliases,
        address6=place.address6,
        prefix_len6=rules.prefix_len6(pool),
        gateway6=pool.gateway if pool is not None and not network.is_internal else "",
    )
