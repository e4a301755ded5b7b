"""The networks that a request asks for, and how."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.place_bodies import EndpointConfig
from labfleet_proto.errors import ForbiddenError, InvalidRequestError

CONTAINER_MODE = "container:"
"""Beginning of the mode of who is in the network namespace of another container of the tenant."""
_ID = re.compile(r"[0-9a-f]{64}")
_NAMED_MODES = ("default", "bridge", "")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class EndpointWish:
    """How a container wants to be in a network."""

    aliases: tuple[str, ...] = ()
    address: str | None = None
    address6: str | None = None
    mac: str | None = None
    links: tuple[str, ...] = ()
    """`container:alias`, as docker has them."""
    driver_opts: dict[str, str] = field(default_factory=dict)
    link_local: tuple[str, ...] = ()
    gateway_priority: int = 0


def endpoint_wish(endpoint: EndpointConfig | None) -> EndpointWish:
    """Read an endpoint's settings. Raises InvalidRequestError."""
    if endpoint is None:
        return EndpointWish()
    wish = endpoint.IPAMConfig
    return EndpointWish(
        aliases=tuple(dict.fromkeys(endpoint.Aliases or ())),
        address=wish.IPv4Address if wish and wish.IPv4Address else None,
        address6=wish.IPv6Address if wish and wish.IPv6Address else None,
        mac=checked_mac(endpoint.MacAddress),
        links=tuple(endpoint.Links or ()),
        driver_opts=endpoint.DriverOpts or {},
        link_local=_link_local((wish.LinkLocalIPs if wish else None) or ()),
        gateway_priority=endpoint.GwPriority,
    )


def _link_local(addresses: Sequence[str]) -> tuple[str, ...]:
    for text in addresses:
        try:
            is_one = IPv4Address(text).is_link_local
        except ValueError:
            is_one = False
        if not is_one:
            raise InvalidRequestError(f"invalid link-local IP address: {text}")
    return tuple(dict.fromkeys(addresses))


def checked_mac(text: str) -> str | None:
    """A hardware address in its usual form; None for the empty text. Raises InvalidRequestError."""
    if not text:
        return None
    plain = text.lower().replace("-", ":")
    if _MAC.fullmatch(plain) is None or int(plain[:2], 16) & 1 or plain == "00:00:00:00:00:00":
        raise InvalidRequestError(f"invalid MAC address: {text}")
    return plain


def wanted_networks(body: CreateBody, *, is_operator: bool = False) -> dict[str, EndpointWish]:
    """Names of the networks to join, first the one of the mode, with the wishes for each.

    The empty name means the tenant's default network, which who names only others does not join
    (as docker). Raises ForbiddenError, InvalidRequestError.
    """
    host = body.HostConfig or HostConfigBody()
    mode = host.NetworkMode
    endpoints = (body.NetworkingConfig.EndpointsConfig if body.NetworkingConfig else None) or {}
    if mode == "host" and is_operator:
        return {}
    if mode == "host" or mode.startswith("ns:"):
        raise ForbiddenError(f"HostConfig.NetworkMode: {mode}: the host's are never shared")
    if mode == "none" or mode.startswith(CONTAINER_MODE) or body.NetworkDisabled:
        return {}
    first = "" if mode in _NAMED_MODES else mode
    found: dict[str, EndpointWish] = {}
    if first or not endpoints:
        found[first] = EndpointWish()
    for name, endpoint in endpoints.items():
        key = "" if name in _NAMED_MODES else name
        wish = endpoint_wish(endpoint)
        if endpoint is not None or key not in found:
            found[key] = wish
    return _with_own_wishes(body, host, found)


def _with_own_wishes(
    body: CreateBody, host: HostConfigBody, found: dict[str, EndpointWish]
) -> dict[str, EndpointWish]:
    """The container's own MAC address and links are the first network's."""
    mac = checked_mac(body.MacAddress)
    if not found or not (mac or host.Links):
        return found
    name, wish = next(iter(found.items()))
    if mac and wish.mac and mac != wish.mac:
        raise InvalidRequestError(
            "the container-wide MAC address must match the endpoint-specific MAC address for the "
            "main network, or be left empty"
        )
    changed = replace(wish, mac=mac or wish.mac, links=(*(host.Links or ()), *wish.links))
    return {**found, name: changed}


def parse_link(text: str) -> tuple[str, str]:
    """`container:alias`, or a name that is both. Raises InvalidRequestError."""
    parts = text.split(":")
    if len(parts) > 2 or not all(parts):
        raise InvalidRequestError(f"bad format for links: {text}")
    name = parts[0].removeprefix("/")
    if _ID.fullmatch(name) is not None:
        name = name[:12]  # as DNS knows it
    return name, parts[-1].rpartition("/")[2]


def shared_with(body: CreateBody) -> str:
    """The container whose network namespace is asked for; empty: none.

    Raises InvalidRequestError in docker's words for what cannot go with it.
    """
    host = body.HostConfig or HostConfigBody()
    if not host.NetworkMode.startswith(CONTAINER_MODE):
        return ""
    conflicts = (
        (body.Hostname, "hostname and the network mode"),
        (
            host.Links,
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (host.Dns, "dns and the network mode"),
        (host.ExtraHosts, "custom host-to-IP mapping and the network mode"),
        (body.MacAddress, "mac-address and the network mode"),
        (
            host.PortBindings or host.PublishAllPorts,
            "port publishing and the container type network mode",
        ),
        (body.ExposedPorts, "port exposing and the container type network mode"),
    )
    for is_set, words in conflicts:
        if is_set:
            raise InvalidRequestError(f"conflicting options: {words}")
    name = host.NetworkMode.removeprefix(CONTAINER_MODE)
    if not name:
        raise InvalidRequestError("invalid container format container:<name|id>")
    return name
