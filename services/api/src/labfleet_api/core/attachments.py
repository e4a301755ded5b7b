"""The networks that a create request asks for."""

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto.errors import ForbiddenError, NotImplementedYetError

_NAMED_MODES = ("default", "bridge", "")


def wanted_networks(body: CreateBody) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """Names of the networks to join, first the one of the mode, with aliases and address.

    The empty name means the tenant's default network, which who names only others does not join
    (as docker). Raises ForbiddenError.
    """
    host = body.HostConfig or HostConfigBody()
    mode = host.NetworkMode
    endpoints = (body.NetworkingConfig.EndpointsConfig if body.NetworkingConfig else None) or {}
    if mode == "host" or mode.startswith(("container:", "ns:")):
        raise ForbiddenError(f"HostConfig.NetworkMode: {mode}: namespaces are never shared")
    if mode == "none" or body.NetworkDisabled:
        return {}
    first = "" if mode in _NAMED_MODES else mode
    found: dict[str, tuple[tuple[str, ...], str | None]] = {}
    if first or not endpoints:
        found[first] = ((), None)
    for name, endpoint in endpoints.items():
        key = "" if name in _NAMED_MODES else name
        if endpoint is None:
            found.setdefault(key, ((), None))
            continue
        if endpoint.Links or endpoint.MacAddress:
            raise NotImplementedYetError(
                f"labfleet: EndpointsConfig.{name}: Links and MacAddress are not there yet"
            )
        wish = endpoint.IPAMConfig
        address = wish.IPv4Address if wish and wish.IPv4Address else None
        found[key] = (tuple(endpoint.Aliases or ()), address)
    return found
