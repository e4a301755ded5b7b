"""Exposed and published ports of a create request."""

import re

from labfleet_api.core.host_config import HostConfigBody, PortTarget
from labfleet_proto.containers import PortBinding
from labfleet_proto.errors import InvalidRequestError, NotImplementedYetError

_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?")
_HOST_PORT = re.compile(r"([0-9]{1,5})(-[0-9]{1,5})?|")


def port_name(text: str) -> str:
    """Return `80/tcp` for `80` and the like. Raises InvalidRequestError."""
    found = _PORT.fullmatch(text)
    if found is None or not 0 < int(found[1]) <= 65_535:
        raise InvalidRequestError(f"invalid port specification: {text!r}")
    return f"{int(found[1])}/{found[2] or 'tcp'}"


def bindings(host: HostConfigBody, exposed: dict[str, None]) -> tuple[PortBinding, ...]:
    """Published ports; their names are added to `exposed`. Raises InvalidRequestError, NotImplementedYetError."""
    found: list[PortBinding] = []
    for text, targets in (host.PortBindings or {}).items():
        name = port_name(text)
        exposed.setdefault(name)
        for target in targets or [PortTarget()]:
            found.append(_binding(name, str(target.HostPort), target.HostIp))
    if host.PublishAllPorts:
        bound = {f"{each.container_port}/{each.protocol}" for each in found}
        found += [_binding(name, "", "") for name in exposed if name not in bound]
    if host.NetworkMode == "none" and found:
        raise InvalidRequestError(
            "HostConfig.PortBindings: a container without network has no ports"
        )
    return tuple(found)


def _binding(name: str, asked: str, address: str) -> PortBinding:
    port, _, protocol = name.partition("/")
    if protocol == "sctp":
        raise NotImplementedYetError("labfleet: publishing sctp ports is not there yet")
    found = _HOST_PORT.fullmatch(asked)
    if found is None or int(found[1] or 0) > 65_535:
        raise InvalidRequestError(f"invalid port specification: {asked!r}")
    if found[2]:
        raise NotImplementedYetError(
            f"labfleet: HostPort {asked}: a range to choose from is not there yet"
        )
    return PortBinding(
        container_port=int(port),
        protocol=protocol,
        host_address=address if address not in ("", "::") else "0.0.0.0",  # noqa: S104
        host_port=int(asked or 0) or None,
    )
