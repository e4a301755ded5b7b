"""IPv6 pools of networks: what the client chooses, or a /64 of the fleet's own (RFC 4193)."""

from ipaddress import IPv6Address, IPv6Network

from labfleet_api.core.place_bodies import IpamPool
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.networks import AddressPool, NetworkRecord

_OWN = IPv6Network("fd6c:6162:666c::/48")
_SMALLEST = 126


def own_pool(vni: int) -> AddressPool:
    """The /64 of a network that names none; as unique in the fleet as its VNI."""
    # 16 bits of subnets are fewer than 24 of VNIs: the rest goes into the global id, which is ours to choose.
    first = int(_OWN.network_address) + ((vni >> 16) << 80) + ((vni & 0xFFFF) << 64)
    network = IPv6Network((first, 64))
    return AddressPool(subnet=str(network), gateway=str(network[1]))


def asked(pool: IpamPool) -> AddressPool:
    """Check a pool that a client asked for. Raises InvalidRequestError."""
    subnet = _network("subnet", pool.Subnet)
    if subnet.prefixlen > _SMALLEST:
        raise InvalidRequestError(
            f"invalid subnet {pool.Subnet}: its prefix must be at most /{_SMALLEST}"
        )
    if subnet.is_multicast or subnet.is_loopback or subnet.is_link_local:
        raise InvalidRequestError(
            f"invalid subnet {pool.Subnet}: these addresses have a meaning already"
        )
    ip_range = ""
    if pool.IPRange:
        inner = _network("ip-range", pool.IPRange)
        if not inner.subnet_of(subnet):
            raise InvalidRequestError(f"invalid ip-range {pool.IPRange}: it is not within {subnet}")
        ip_range = str(inner)
    first = IPv6Network(ip_range or subnet).network_address
    gateway = first + 1 if first == subnet.network_address else first
    return AddressPool(
        subnet=str(subnet),
        gateway=_within("gateway", pool.Gateway, subnet) if pool.Gateway else str(gateway),
        ip_range=ip_range,
        aux_addresses={
            name: _within("auxiliary address", address, subnet)
            for name, address in (pool.AuxiliaryAddresses or {}).items()
        },
    )


def _network(what: str, text: str) -> IPv6Network:
    try:
        wide = IPv6Network(text, strict=False)
        address = IPv6Address(text.partition("/")[0])
    except ValueError as exc:
        raise InvalidRequestError(f"invalid {what} {text}: invalid CIDR block notation") from exc
    if "/" not in text:
        raise InvalidRequestError(f"invalid {what} {text}: invalid CIDR block notation")
    if wide.network_address != address:
        raise InvalidRequestError(f"invalid {what} {text}: it should be {wide}")
    return wide


def _within(what: str, text: str, subnet: IPv6Network) -> str:
    try:
        address = IPv6Address(text)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid {what} {text}: invalid address") from exc
    if address not in subnet or address == subnet.network_address:
        raise InvalidRequestError(f"invalid {what} {text}: parent subnet is {subnet}")
    return str(address)


def check_endpoint(network: NetworkRecord, text: str) -> str:
    """An address that a container asks for in a network, as it is written. Raises InvalidRequestError."""
    try:
        address = IPv6Address(text)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid IPv6 address: {text}") from exc
    subnet = IPv6Network(network.ipv6.subnet) if network.ipv6 is not None else None
    if subnet is None or address not in subnet or address == subnet.network_address:
        raise InvalidRequestError(
            f"invalid endpoint settings:\nno configured subnet contains IP address {text}"
        )
    return str(address)


def overlap(one: AddressPool | None, other: AddressPool | None) -> bool:
    """Whether two pools share addresses."""
    if one is None or other is None:
        return False
    return IPv6Network(one.subnet).overlaps(IPv6Network(other.subnet))
