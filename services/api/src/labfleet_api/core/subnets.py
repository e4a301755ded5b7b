"""Address ranges of networks: /24s of one pool, each claimed once in the fleet."""

import ipaddress
from collections.abc import Collection, Iterator

from labfleet_proto.errors import InvalidRequestError, NotImplementedYetError
from labfleet_proto.networks import ADDRESS_POOL

POOL = ipaddress.IPv4Network(ADDRESS_POOL)
PREFIX = 24
LARGEST_VNI = (1 << 24) - 1


COUNT = 1 << (PREFIX - POOL.prefixlen)


def candidates(taken: Collection[str], start: int) -> Iterator[ipaddress.IPv4Network]:
    """Free /24s of the pool from number `start` on; a random start keeps concurrent callers apart."""
    for step in range(COUNT):
        number = int(POOL.network_address) + ((start + step) % COUNT << (32 - PREFIX))
        network = ipaddress.IPv4Network((number, PREFIX))
        if str(network) not in taken:
            yield network


def asked_subnet(text: str) -> ipaddress.IPv4Network:
    """Check a subnet that a client asked for. Raises InvalidRequestError, NotImplementedYetError."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid subnet {text}: {exc}") from exc
    if network.prefixlen != PREFIX or not network.subnet_of(POOL):
        raise NotImplementedYetError(
            f"labfleet: subnet {text}: only /{PREFIX} networks of {POOL} can be chosen; "
            "leave it out and one is given"
        )
    return network


def gateway(network: ipaddress.IPv4Network) -> str:
    """The first address."""
    return str(network.network_address + 1)


def subnet_key(network: ipaddress.IPv4Network) -> str:
    """Key of the claim in `subnets`."""
    return f"net.{network.network_address}-{network.prefixlen}"


def vni_key(vni: int) -> str:
    """Key of the claim in `subnets`."""
    return f"vni.{vni}"
