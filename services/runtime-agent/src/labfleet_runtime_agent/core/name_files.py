"""Texts of /etc/hosts and /etc/resolv.conf, and how they follow the networks of a running container."""

from collections.abc import Sequence

from labfleet_proto.containers import ContainerSpec
from labfleet_proto.networks import DEFAULT_NETWORK, Endpoint, InterfaceReady

_LOCAL = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


def hosts(spec: ContainerSpec, endpoints: Sequence[Endpoint]) -> str:
    """Text of /etc/hosts, as docker writes it."""
    lines = list(_LOCAL)
    for extra in spec.extra_hosts:
        name, _, address = extra.partition(":")
        lines.append(f"{address}\t{name}")
    lines += [line for endpoint in endpoints for line in _own_lines(spec, endpoint)]
    return "\n".join(lines) + "\n"


def _own_lines(spec: ContainerSpec, endpoint: Endpoint) -> list[str]:
    full = spec.hostname
    if spec.domainname:
        full = f"{full}.{spec.domainname} {full}"
    return [f"{address}\t{full}" for address in _addresses(endpoint)]


def _addresses(endpoint: Endpoint) -> list[str]:
    return [each for each in (endpoint.address, endpoint.address6) if each]


def changed_hosts(
    text: str, spec: ContainerSpec, old: Sequence[Endpoint], new: Sequence[Endpoint]
) -> str:
    """What /etc/hosts becomes; lines of the container's own stay."""
    had, has = ({address for each in side for address in _addresses(each)} for side in (old, new))
    lines = [line for line in text.splitlines() if line.split("\t")[0] not in had - has]
    lines += [line for each in new if each.address not in had for line in _own_lines(spec, each)]
    return "\n".join(lines) + "\n"


def resolv_conf(spec: ContainerSpec, interface: InterfaceReady) -> str:
    """Text of /etc/resolv.conf."""
    lines = [f"nameserver {server}" for server in _servers(spec, interface)]
    if spec.dns_search and spec.dns_search != (".",):
        lines.append(f"search {' '.join(spec.dns_search)}")
    options = spec.dns_options
    if not any(option.startswith("ndots:") for option in options):
        options = ("ndots:0", *options)
    lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def changed_resolv_conf(text: str, spec: ContainerSpec, interface: InterfaceReady) -> str:
    """What /etc/resolv.conf becomes: the servers follow, all other lines stay."""
    servers = [f"nameserver {server}" for server in _servers(spec, interface)]
    rest = [line for line in text.splitlines() if not line.startswith("nameserver ")]
    return "\n".join([*servers, *rest]) + "\n"


def _servers(spec: ContainerSpec, interface: InterfaceReady) -> Sequence[str]:
    """Our DNS server, which asks those that the user named.

    They stand alone, as in docker, where a container has no network but the default one.
    """
    has_names = any(network.network_name != DEFAULT_NETWORK for network in spec.networks)
    return interface.dns_servers if has_names or not spec.dns else spec.dns
