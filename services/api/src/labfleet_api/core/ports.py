"""Exposed and published ports of a create request."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address

from labfleet_api.core.host_config import HostConfigBody, PortTarget
from labfleet_proto.containers import PortBinding
from labfleet_proto.errors import InvalidRequestError

_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_HOST_PORT = re.compile(r"([0-9]{1,5})(-[0-9]{1,5})?|")


def port_name(text: str) -> str:
    """Return `80/tcp` for `80` and the like. Raises InvalidRequestError."""
    found = _PORT.fullmatch(text)
    if found is None or not 0 < int(found[1]) <= 65_535:
        raise InvalidRequestError(f"invalid port specification: {text!r}")
    return f"{int(found[1])}/{found[2] or 'tcp'}"


def bindings(host: HostConfigBody, exposed: dict[str, None]) -> tuple[PortBinding, ...]:
    """Published ports; their names are added to `exposed`. Raises InvalidRequestError."""
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
    found = _HOST_PORT.fullmatch(asked)
    first = int(found[1] or 0) if found else 0
    last = int(found[2][1:]) if found and found[2] else first
    if found is None or last > 65_535 or last < first or (found[2] and first == 0):
        raise InvalidRequestError(f"invalid port specification: {asked!r}")
    is_range = last > first
    return PortBinding(
        container_port=int(port),
        protocol=protocol,
        host_address=_host_address(address),
        host_port=None if is_range else first or None,
        host_port_first=first if is_range else None,
        host_port_last=last if is_range else None,
    )


def _host_address(text: str) -> str:
    if text in ("", "::"):
        return "0.0.0.0"  # noqa: S104 - docker's default
    try:
        return str(IPv4Address(text))
    except ValueError as exc:
        raise InvalidRequestError(f"invalid IP address: {text}") from exc


def exposed(names: Iterable[str]) -> dict[str, None]:
    """Names of exposed ports, ranges as their ports. Raises InvalidRequestError."""
    found: dict[str, None] = {}
    for name in names:
        ports, slash, protocol = name.partition("/")
        first, dash, last = ports.partition("-")
        if not dash:
            found[port_name(name)] = None
            continue
        if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
            raise InvalidRequestError(f"invalid port specification: {name!r}")
        if not int(first) <= int(last) <= 65_535:
            raise InvalidRequestError(f"invalid port specification: {name!r}")
        for port in range(int(first), int(last) + 1):
            found[port_name(f"{port}{slash}{protocol}")] = None
    return found
