"""Addresses of a network: the lowest free one; the hardware address follows from it."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from labfleet_proto.errors import InvalidRequestError, NoRoomError
from labfleet_proto.networks import AddressPool, InterfaceWish, NetworkRecord


def mac_of(address: str) -> str:
    """Locally administered unicast MAC from an IPv4 address: `02:42:` and its bytes, as docker's."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in IPv4Address(address).packed)


def is_ipv6(address: str) -> bool:
    """Whether an address is one of IPv6."""
    return ":" in address


def link_local6(mac: str) -> str:
    """The address that the kernel gives an interface by itself (EUI-64, RFC 4291)."""
    first, *rest = bytes.fromhex(mac.replace(":", ""))
    suffix = bytes((first ^ 2, *rest[:2], 0xFF, 0xFE, *rest[2:]))
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + suffix))


def pool6(network: NetworkRecord) -> AddressPool | None:
    """Where a network's IPv6 addresses come from; None if its containers get none."""
    return network.ipv6 if network.has_ipv6 else None


def prefix_len6(pool: AddressPool | None) -> int:
    """Length of an IPv6 subnet's prefix; 0: no IPv6."""
    return IPv6Network(pool.subnet).prefixlen if pool is not None else 0


def lowest_free6(network: NetworkRecord, pool: AddressPool, taken: AbstractSet[str]) -> str:
    """As `lowest_free`, of a network's IPv6 addresses. Raises NoRoomError."""
    where = IPv6Network(pool.ip_range or pool.subnet)
    never = {pool.gateway, *pool.aux_addresses.values()}
    never.add(str(IPv6Network(pool.subnet).network_address))
    for address in where:
        text = str(address)
        if text not in never and text not in taken:
            return text
    raise NoRoomError(f"network {network.name}: no address is left in {where}")


def check_asked6(network: NetworkRecord, pool: AddressPool, text: str) -> None:
    """As `check_asked`, of an IPv6 address. Raises InvalidRequestError."""
    try:
        address = IPv6Address(text)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid address {text}: {exc}") from exc
    subnet = IPv6Network(pool.subnet)
    if address not in subnet or address == subnet.network_address:
        raise InvalidRequestError(f"address {text} is not in network {network.name}'s {subnet}")
    if text == pool.gateway or text in pool.aux_addresses.values():
        raise InvalidRequestError(f"address {text} is set aside in network {network.name}")


def gateway_mac(network: NetworkRecord) -> str:
    """The gateway's MAC, the same on every host."""
    return mac_of(network.gateway)


def prefix_len(network: NetworkRecord) -> int:
    """Length of the subnet's prefix."""
    return IPv4Network(network.subnet).prefixlen


def lowest_free(network: NetworkRecord, taken: AbstractSet[str]) -> str:
    """Return the lowest address that is not taken. Raises NoRoomError when the subnet is full."""
    where = network.ip_range or network.subnet
    subnet = IPv4Network(network.subnet)
    never = {network.gateway, *network.aux_addresses.values()}
    never |= {str(subnet.network_address), str(subnet.broadcast_address)}
    whole = IPv4Network(where)
    for number in range(int(whole.network_address), int(whole.broadcast_address) + 1):
        text = ".".join(map(str, number.to_bytes(4)))  # a class may have taken hundreds
        if text not in never and text not in taken:
            return text
    raise NoRoomError(f"network {network.name}: no address is left in {where}")


def way_out(wishes: Sequence[InterfaceWish], networks: Sequence[NetworkRecord]) -> int | None:
    """Position of the network that leads out: of the greatest priority, then the first; None: nowhere."""
    open_ones = [number for number, network in enumerate(networks) if not network.is_internal]
    if not open_ones:
        return None
    return max(open_ones, key=lambda number: (wishes[number].gateway_priority, -number))


def check_asked(network: NetworkRecord, address: str) -> None:
    """An address asked for must lie in the subnet. Raises InvalidRequestError."""
    try:
        wanted = IPv4Address(address)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid address {address}: {exc}") from exc
    subnet = IPv4Network(network.subnet)
    if wanted not in subnet or wanted in (subnet.network_address, subnet.broadcast_address):
        raise InvalidRequestError(f"address {address} is not in network {network.name}'s {subnet}")
    if address in network.aux_addresses.values():
        raise InvalidRequestError(f"address {address} is set aside in network {network.name}")
    if address == network.gateway:
        raise InvalidRequestError(f"address {address} is the gateway of network {network.name}")
