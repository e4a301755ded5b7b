"""Address ranges of networks: /24s of one pool, each claimed once, or what the client chooses."""

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from labfleet_api.core import subnets6
from labfleet_api.core.place_bodies import IpamPool
from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_proto.networks import ADDRESS_POOL, AddressPool, NetworkRecord

POOL = ipaddress.IPv4Network(ADDRESS_POOL)
PREFIX = 24
DEFAULT_PREFIX = 20
"""Of the operators' default network, where a whole class may run: room for 4093."""
LARGEST_VNI = (1 << 24) - 1
_SMALLEST = 30
"""Prefix of the smallest subnet that has an address beside its gateway's."""
_LARGEST = 8


COUNT = 1 << (PREFIX - POOL.prefixlen)


@dataclass(frozen=True)
class Addressing:
    """What a client asked of a network's addresses."""

    subnet: ipaddress.IPv4Network | None = None
    prefix: int = PREFIX
    """Without `subnet`: of the one that is taken out of the pool."""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: dict[str, str] = field(default_factory=dict)
    ipv6: AddressPool | None = None


def candidates(
    taken: Collection[str], start: int, prefix: int = PREFIX
) -> Iterator[ipaddress.IPv4Network]:
    """Free subnets of the pool from its /24 of number `start` on, by the /24s that are taken.

    A random start keeps concurrent callers apart.
    """
    count = 1 << (prefix - POOL.prefixlen)
    first = start >> (PREFIX - prefix)
    for step in range(count):
        number = int(POOL.network_address) + ((first + step) % count << (32 - prefix))
        network = ipaddress.IPv4Network((number, prefix))
        if all(part not in taken for part in parts(str(network))):
            yield network


def parts(subnet: str) -> list[str]:
    """The /24s of a subnet of the pool, each claimed by itself; any other subnet alone."""
    if subnet.endswith(f"/{PREFIX}"):
        return [subnet]
    network = ipaddress.IPv4Network(subnet)
    if network.prefixlen > PREFIX or not network.subnet_of(POOL):
        return [subnet]
    return [str(part) for part in network.subnets(new_prefix=PREFIX)]


def asked(pools: Sequence[IpamPool]) -> Addressing:
    """Check the pools that a client asked for. Raises InvalidRequestError, ForbiddenError."""
    said = [pool for pool in pools if pool.Subnet or pool.Gateway or pool.IPRange]
    of_six = [pool for pool in said if ":" in pool.Subnet]
    of_four = [pool for pool in said if ":" not in pool.Subnet]
    if len(of_four) > 1 or len(of_six) > 1:
        raise ForbiddenError("bridge driver doesn't support multiple subnets")
    ipv6 = subnets6.asked(of_six[0]) if of_six else None
    if not of_four:
        return Addressing(ipv6=ipv6)
    pool = of_four[0]
    subnet = _subnet(pool.Subnet)
    ip_range = pool.IPRange
    if ip_range:
        inner = _network("ip-range", ip_range)
        if not inner.subnet_of(subnet):
            raise InvalidRequestError(f"invalid ip-range {ip_range}: it is not within {subnet}")
    return Addressing(
        subnet=subnet,
        gateway=_within("gateway", pool.Gateway, subnet) if pool.Gateway else "",
        ip_range=ip_range,
        aux_addresses={
            name: _within("auxiliary address", address, subnet)
            for name, address in (pool.AuxiliaryAddresses or {}).items()
        },
        ipv6=ipv6,
    )


def _subnet(text: str) -> ipaddress.IPv4Network:
    network = _network("subnet", text)
    if not _LARGEST <= network.prefixlen <= _SMALLEST:
        raise InvalidRequestError(
            f"invalid subnet {text}: its prefix must be from /{_LARGEST} to /{_SMALLEST}"
        )
    if network.is_multicast or network.is_loopback or network.is_link_local:
        raise InvalidRequestError(f"invalid subnet {text}: these addresses have a meaning already")
    return network


def _network(what: str, text: str) -> ipaddress.IPv4Network:
    try:
        wide = ipaddress.IPv4Network(text, strict=False)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid {what} {text}: invalid CIDR block notation") from exc
    if "/" not in text:
        raise InvalidRequestError(f"invalid {what} {text}: invalid CIDR block notation")
    if str(wide.network_address) != text.partition("/")[0]:
        raise InvalidRequestError(f"invalid {what} {text}: it should be {wide}")
    return wide


def _within(what: str, text: str, subnet: ipaddress.IPv4Network) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid {what} {text}: invalid address") from exc
    if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
        raise InvalidRequestError(f"invalid {what} {text}: parent subnet is {subnet}")
    return str(address)


def check_endpoint(network: NetworkRecord, address: str) -> None:
    """Check an address that a container asks for in a network. Raises InvalidRequestError."""
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid IPv4 address: {address}") from exc
    subnet = ipaddress.IPv4Network(network.subnet)
    if wanted not in subnet or wanted in (subnet.network_address, subnet.broadcast_address):
        raise InvalidRequestError(
            f"invalid endpoint settings:\nno configured subnet contains IP address {address}"
        )


def refuse_overlap(
    subnet: ipaddress.IPv4Network | None,
    ipv6: AddressPool | None,
    others: Sequence[NetworkRecord],
) -> None:
    """Two networks of one tenant may not share addresses. Raises ForbiddenError in docker's words."""
    for other in others:
        pairs = []
        if subnet is not None and subnet.overlaps(ipaddress.IPv4Network(other.subnet)):
            pairs.append((str(subnet), other.subnet))
        if ipv6 is not None and other.ipv6 is not None and subnets6.overlap(ipv6, other.ipv6):
            pairs.append((ipv6.subnet, other.ipv6.subnet))
        for mine, theirs in pairs:
            raise ForbiddenError(
                "invalid pool request: Pool overlaps with other one on this address space: "
                f"{mine} and {theirs} of network {other.name}"
            )


def gateway(network: ipaddress.IPv4Network, ip_range: str = "") -> str:
    """The first address, of the range that addresses are given from."""
    first = ipaddress.IPv4Network(ip_range or str(network)).network_address
    return str(first + 1) if first == network.network_address else str(first)


def subnet_key(network: str) -> str:
    """Key of the claim of a /24 in `subnets`."""
    return f"net.{network.replace('/', '-')}"


def vni_key(vni: int) -> str:
    """Key of the claim in `subnets`."""
    return f"vni.{vni}"
