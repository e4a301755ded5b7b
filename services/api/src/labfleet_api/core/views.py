"""Containers in docker's shapes: rows of lists and the inspect document."""

from collections.abc import Sequence
from typing import Any

from labfleet_api.core.config_views import config, host_config
from labfleet_api.core.network_views import endpoints, port_map, port_rows
from labfleet_api.core.status import is_live, restart_count, state_json, state_of, status_of
from labfleet_api.core.times import rfc3339
from labfleet_proto.containers import ContainerRecord, ContainerSpec, Observation
from labfleet_proto.hosts import HostRecord

Json = dict[str, Any]


DOCKER_ROOT = "/var/lib/docker"
"""Where clients expect docker's files: a name only, hosts do not show their paths."""


def mountpoint(volume: str) -> str:
    """Where clients expect a volume's files."""
    return f"{DOCKER_ROOT}/volumes/{volume}/_data"


def mounts(spec: ContainerSpec) -> list[Json]:
    """Mount points; docker leaves those of `--tmpfs` out."""
    flag = spec.asked_host_config.get("Tmpfs")
    by_flag = flag if isinstance(flag, dict) else {}
    rows: list[Json] = [
        {
            "Type": "volume",
            "Name": each.volume,
            "Source": mountpoint(each.volume),
            "Destination": each.target,
            "Driver": "local",
            "Mode": "ro" if each.read_only else "z",
            "RW": not each.read_only,
            "Propagation": "",
        }
        for each in spec.mounts
    ]
    rows += [
        {
            "Type": "bind",
            "Source": bind.source,
            "Destination": bind.target,
            "Mode": bind.mode,
            "RW": not bind.read_only,
            "Propagation": bind.propagation,
        }
        for bind in spec.host_binds
    ]
    rows += [
        {
            "Type": "tmpfs",
            "Source": "",
            "Destination": target,
            "Mode": options,
            "RW": True,
            "Propagation": "",
        }
        for target, options in spec.tmpfs.items()
        if target not in by_flag
    ]
    return rows


def _command(argv: Sequence[str]) -> str:
    """The program, and its arguments in quotes where they have spaces: docker's way."""
    return " ".join([*argv[:1], *(f"'{word}'" if " " in word else word for word in argv[1:])])


def row(
    record: ContainerRecord, seen: Observation | None, now_ns: int, *, is_host_lost: bool
) -> Json:
    """One row of `GET /containers/json`."""
    state = state_of(record, seen)
    spec = record.spec
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.image.reference,
        "ImageID": record.image.image_id,
        "Command": _command(spec.argv),
        "Created": record.created_at_ns // 1_000_000_000,
        "Ports": port_rows(spec, is_running=is_live(state)),
        "Labels": {**spec.labels, "labfleet.host": record.assignment.host},
        "State": state,
        "Status": status_of(record, seen, now_ns, is_host_lost=is_host_lost),
        "HostConfig": {"NetworkMode": spec.network_mode},
        "NetworkSettings": {"Networks": endpoints(record, seen)},
        "Mounts": mounts(spec),
    }


def inspect(record: ContainerRecord, seen: Observation | None, host: HostRecord | None) -> Json:
    """`GET /containers/{id}/json`, with `Node` as classic Swarm had it."""
    spec = record.spec
    networks = endpoints(record, seen)
    first = next(iter(networks.values()), {})
    state = state_json(record, seen)
    return {
        "Id": record.id,
        "Created": rfc3339(record.created_at_ns),
        "Path": spec.argv[0] if spec.argv else "",
        "Args": list(spec.argv[1:]),
        "State": state,
        "Image": record.image.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": f"/{record.name}",
        "RestartCount": restart_count(record, seen),
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": host_config(record),
        "GraphDriver": {"Name": "overlay2", "Data": {}},
        "Mounts": mounts(spec),
        "Config": config(record),
        "NetworkSettings": {
            "Bridge": "",
            "SandboxID": record.id if state["Running"] else "",
            "SandboxKey": "",
            "Ports": port_map(spec) if state["Running"] else {},
            "EndpointID": first.get("EndpointID", ""),
            "Gateway": first.get("Gateway", ""),
            "IPAddress": first.get("IPAddress", ""),
            "IPPrefixLen": first.get("IPPrefixLen", 0),
            "MacAddress": first.get("MacAddress", ""),
            "Networks": networks,
        },
        "Node": {
            "ID": record.assignment.host,
            "Name": record.assignment.host,
            "IP": host.address if host else "",
            "Labels": host.labels if host else {},
            "Reason": record.assignment.reason,
        },
    }
