"""Names of kernel objects: all begin with the fleet's tag and follow from an id.

A name of an interface holds 15 characters: tag (at most 6), kind (1), 8 hex digits of the id.
"""

import hashlib
import re

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import ContainerId, NetworkId

BRIDGE = "b"
VXLAN = "x"
VETH = "v"
LAN = "g"
TRANSIT = "t"
HEX = 8


_SYSCTL = re.compile(r"net(\.[A-Za-z0-9_-]+)+")


def sysctl_path(name: str) -> str:
    """File of a setting of the network namespace. Raises InvalidRequestError."""
    plain = name.replace("/", ".")
    if _SYSCTL.fullmatch(plain) is None:
        raise InvalidRequestError(f"HostConfig.Sysctls: {name} is no setting of a network")
    return f"/proc/sys/{plain.replace('.', '/')}"


def short(text: str) -> str:
    """Eight hex digits of an id that is hex already, or of a hash of anything else."""
    head = text[:HEX]
    if len(text) == 64 and all(digit in "0123456789abcdef" for digit in head):
        return head
    return hashlib.sha256(text.encode()).hexdigest()[:HEX]


def bridge(tag: str, network: NetworkId) -> str:
    """Bridge of a network on this host."""
    return f"{tag}{BRIDGE}{short(network)}"


def vxlan(tag: str, network: NetworkId) -> str:
    """VXLAN device of a network on this host."""
    return f"{tag}{VXLAN}{short(network)}"


def veth(tag: str, container: ContainerId, network: NetworkId) -> str:
    """Host end of a container's interface in a network."""
    mixed = hashlib.sha256(f"{container} {network}".encode()).hexdigest()
    return f"{tag}{VETH}{mixed[:HEX]}"


def router(tag: str, network: NetworkId) -> str:
    """Name of the namespace that leads a network of the client's own subnet to its host."""
    return f"{tag}-router-{short(network)}"


def is_router(tag: str, name: str) -> bool:
    """Whether a namespace's name is a router's; a container's has no such word, being hex."""
    return name.startswith(f"{tag}-router-")


def lan(tag: str, network: NetworkId) -> str:
    """The router's place on the bridge."""
    return f"{tag}{LAN}{short(network)}"


def transit(tag: str, network: NetworkId) -> str:
    """Host end of the router's way out."""
    return f"{tag}{TRANSIT}{short(network)}"


def namespace(tag: str, container: ContainerId) -> str:
    """Name of a container's network namespace."""
    return f"{tag}-{container[:32]}"


NETWORK_LINKS = (bridge, vxlan, lan, transit)
"""Names of the links that a network has on a host; without a router only the first two."""


def is_of_network(tag: str, name: str) -> bool:
    """Whether a link is one of a network, not of a container."""
    kinds = (BRIDGE, VXLAN, LAN, TRANSIT)
    return len(name) == len(tag) + 1 + HEX and name.startswith(tuple(tag + kind for kind in kinds))
