"""Addresses of a network: the lowest free one; the hardware address follows from it."""

from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv4Network

from labfleet_proto.errors import InvalidRequestError, NoRoomError
from labfleet_proto.networks import NetworkRecord


def mac_of(address: str) -> str:
    """Locally administered unicast MAC from an IPv4 address: `02:42:` and its bytes, as docker's."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in IPv4Address(address).packed)


def gateway_mac(network: NetworkRecord) -> str:
    """The gateway's MAC, the same on every host."""
    return mac_of(network.gateway)


def prefix_len(network: NetworkRecord) -> int:
    """Length of the subnet's prefix."""
    return IPv4Network(network.subnet).prefixlen


def lowest_free(network: NetworkRecord, taken: AbstractSet[str]) -> str:
    """Return the lowest address that is not taken. Raises NoRoomError when the subnet is full."""
    for address in IPv4Network(network.subnet).hosts():
        text = str(address)
        if text != network.gateway and text not in taken:
            return text
    raise NoRoomError(f"network {network.name}: no address is left in {network.subnet}")


def check_asked(network: NetworkRecord, address: str) -> None:
    """An address asked for must lie in the subnet. Raises InvalidRequestError."""
    try:
        wanted = IPv4Address(address)
    except ValueError as exc:
        raise InvalidRequestError(f"invalid address {address}: {exc}") from exc
    subnet = IPv4Network(network.subnet)
    if wanted not in subnet or wanted in (subnet.network_address, subnet.broadcast_address):
        raise InvalidRequestError(f"address {address} is not in network {network.name}'s {subnet}")
    if address == network.gateway:
        raise InvalidRequestError(f"address {address} is the gateway of network {network.name}")
