"""A container's ports and endpoints in docker's shapes."""

from typing import Any

from labfleet_proto.containers import ContainerRecord, ContainerSpec, NetworkAttachment, Observation

Json = dict[str, Any]


def port_rows(spec: ContainerSpec, *, is_running: bool) -> list[Json]:
    """The column PORTS of `docker ps`."""
    rows: list[Json] = []
    if not is_running:
        return rows
    published = {f"{each.container_port}/{each.protocol}" for each in spec.ports}
    for name in spec.exposed_ports:
        port, _, protocol = name.partition("/")
        if name not in published:
            rows.append({"PrivatePort": int(port), "Type": protocol})
    for each in spec.ports:
        rows.append(
            {
                "IP": each.host_address,
                "PrivatePort": each.container_port,
                "PublicPort": each.host_port or 0,
                "Type": each.protocol,
            }
        )
    return rows


def port_map(spec: ContainerSpec) -> dict[str, list[dict[str, str]] | None]:
    """Port bindings as inspect shows them."""
    found: dict[str, list[dict[str, str]] | None] = dict.fromkeys(spec.exposed_ports)
    for each in spec.ports:
        name = f"{each.container_port}/{each.protocol}"
        row = {"HostIp": each.host_address, "HostPort": str(each.host_port or "")}
        found[name] = [*(found.get(name) or []), row]
    return found


def endpoints(record: ContainerRecord, seen: Observation | None) -> dict[str, Json]:
    """`NetworkSettings.Networks`; addresses are empty while it does not run."""
    live = {each.network: each for each in seen.endpoints} if seen else {}
    found: dict[str, Json] = {}
    for wish in record.spec.networks:
        at = live.get(wish.network_id)
        names = [record.name, *wish.aliases, record.id[:12]]
        found[wish.network_name] = {
            "IPAMConfig": _ipam(wish) or None,
            "Links": [f"{name}:{alias}" for alias, name in wish.links.items()] or None,
            "Aliases": list(wish.aliases) or None,
            "MacAddress": at.mac if at else wish.mac or "",
            "DriverOpts": wish.driver_opts or None,
            "GwPriority": wish.gateway_priority,
            "NetworkID": wish.network_id,
            "EndpointID": endpoint_id(record.id, wish.network_id) if at else "",
            "Gateway": at.gateway if at else "",
            "IPAddress": at.address if at else "",
            "IPPrefixLen": at.prefix_len if at else 0,
            "IPv6Gateway": at.gateway6 if at else "",
            "GlobalIPv6Address": at.address6 if at else "",
            "GlobalIPv6PrefixLen": at.prefix_len6 if at else 0,
            "DNSNames": list(dict.fromkeys(names)),
        }
    mode = record.spec.network_mode
    if not record.spec.networks and mode in ("none", "host"):
        found[mode] = {"NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": ""}
    return found


def endpoint_id(container: str, network: str) -> str:
    """64 hex digits that stand for a container's place in a network."""
    return container[:32] + network[:32]


def _ipam(wish: NetworkAttachment) -> Json:
    """What was asked of the addresses."""
    asked: Json = {
        "IPv4Address": wish.address,
        "IPv6Address": wish.address6,
        "LinkLocalIPs": list(wish.link_local),
    }
    return {name: value for name, value in asked.items() if value}
