"""Containers in docker's shapes: rows of lists and the inspect document."""

from typing import Any

from labfleet_api.core.times import ZERO, human, rfc3339
from labfleet_proto.containers import ContainerRecord, ContainerSpec, Goal, Observation, State
from labfleet_proto.hosts import HostRecord

Json = dict[str, Any]

_NEVER_STARTED = (State.ASSIGNED, State.PREPARING, State.CREATED)


def state_of(record: ContainerRecord, seen: Observation | None) -> str:
    """Docker's word: created, running, exited, removing."""
    if record.goal is Goal.REMOVED or (seen is not None and seen.state is State.REMOVED):
        return "removing"
    if seen is None or seen.state in _NEVER_STARTED:
        return "created"
    if seen.state in (State.RUNNING, State.STOPPING):
        return "running"
    return "exited" if seen.started_at_ns else "created"


def status_of(
    record: ContainerRecord, seen: Observation | None, now_ns: int, *, is_host_lost: bool
) -> str:
    """The column STATUS of `docker ps`."""
    state = state_of(record, seen)
    text = {"created": "Created", "removing": "Removal In Progress"}.get(state, "")
    if seen is not None and state == "running":
        text = f"Up {human((now_ns - seen.started_at_ns) / 1e9)}"
    if seen is not None and state == "exited":
        ago = human((now_ns - seen.finished_at_ns) / 1e9)
        text = f"Exited ({seen.exit_code}) {ago} ago"
    return f"{text} (host {record.assignment.host} is lost)" if is_host_lost else text


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
            "IPAMConfig": {"IPv4Address": wish.address} if wish.address else None,
            "Links": None,
            "Aliases": list(wish.aliases) or None,
            "MacAddress": at.mac if at else "",
            "DriverOpts": None,
            "GwPriority": 0,
            "NetworkID": wish.network_id,
            "EndpointID": endpoint_id(record.id, wish.network_id) if at else "",
            "Gateway": at.gateway if at else "",
            "IPAddress": at.address if at else "",
            "IPPrefixLen": at.prefix_len if at else 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": list(dict.fromkeys(names)),
        }
    if not record.spec.networks and record.spec.network_mode == "none":
        found["none"] = {"NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": ""}
    return found


def endpoint_id(container: str, network: str) -> str:
    """64 hex digits that stand for a container's place in a network."""
    return container[:32] + network[:32]


def mounts(spec: ContainerSpec) -> list[Json]:
    """Mount points."""
    rows: list[Json] = [
        {
            "Type": "volume",
            "Name": each.volume,
            "Source": "",
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
            "Type": "tmpfs",
            "Source": "",
            "Destination": target,
            "Mode": options,
            "RW": True,
            "Propagation": "",
        }
        for target, options in spec.tmpfs.items()
    ]
    return rows


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
        "Command": " ".join(spec.argv),
        "Created": record.created_at_ns // 1_000_000_000,
        "Ports": port_rows(spec, is_running=state == "running"),
        "Labels": {**spec.labels, "labfleet.host": record.assignment.host},
        "State": state,
        "Status": status_of(record, seen, now_ns, is_host_lost=is_host_lost),
        "HostConfig": {"NetworkMode": spec.network_mode},
        "NetworkSettings": {"Networks": endpoints(record, seen)},
        "Mounts": mounts(spec),
    }


def state_json(record: ContainerRecord, seen: Observation | None) -> Json:
    """`State` of inspect."""
    state = state_of(record, seen)
    is_running = state == "running"
    return {
        "Status": state,
        "Running": is_running,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": bool(seen and seen.was_oom_killed),
        "Dead": False,
        "Pid": seen.pid if seen and is_running else 0,
        "ExitCode": (seen.exit_code or 0) if seen else 0,
        "Error": seen.error if seen else "",
        "StartedAt": rfc3339(seen.started_at_ns) if seen else ZERO,
        "FinishedAt": rfc3339(seen.finished_at_ns) if seen else ZERO,
    }


def _host_config(record: ContainerRecord) -> Json:
    spec = record.spec
    limits = spec.limits
    return {
        "Binds": [f"{m.volume}:{m.target}{':ro' if m.read_only else ''}" for m in spec.mounts]
        or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": str(limits.log_bytes)}},
        "NetworkMode": spec.network_mode,
        "PortBindings": {k: v for k, v in port_map(spec).items() if v},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "CgroupnsMode": "private",
        "Dns": list(spec.dns),
        "DnsOptions": [],
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts) or None,
        "GroupAdd": list(spec.group_add) or None,
        "IpcMode": "private",
        "Links": None,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": False,
        "PublishAllPorts": False,
        "ReadonlyRootfs": spec.is_rootfs_read_only,
        "SecurityOpt": ["no-new-privileges"] if spec.no_new_privileges else None,
        "Tmpfs": spec.tmpfs or None,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": limits.shm_bytes,
        "Sysctls": spec.sysctls or None,
        "Runtime": "crun",
        "Isolation": "",
        "CpuShares": limits.cpu_shares or 0,
        "Memory": limits.memory_bytes,
        "NanoCpus": limits.cpu_millis * 1_000_000,
        "CpusetCpus": limits.cpuset_cpus or "",
        "MemorySwap": limits.memory_bytes,
        "PidsLimit": limits.pids,
        "Ulimits": [{"Name": "nofile", "Hard": limits.nofile, "Soft": limits.nofile}],
        "Init": spec.with_init,
    }


def _config(record: ContainerRecord) -> Json:
    spec = record.spec
    return {
        "Hostname": spec.hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "AttachStdin": "stdin" in spec.attach,
        "AttachStdout": "stdout" in spec.attach,
        "AttachStderr": "stderr" in spec.attach,
        "ExposedPorts": {name: {} for name in spec.exposed_ports},
        "Tty": spec.is_tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": list(spec.env),
        "Cmd": list(spec.command),
        "Image": record.image.reference,
        "Volumes": {m.target: {} for m in spec.mounts} or None,
        "WorkingDir": spec.working_dir,
        "Entrypoint": list(spec.entrypoint) or None,
        "OnBuild": None,
        "Labels": spec.labels,
        "StopSignal": spec.stop_signal,
        "StopTimeout": spec.stop_timeout_s,
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
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(record),
        "GraphDriver": {"Name": "overlay2", "Data": {}},
        "Mounts": mounts(spec),
        "Config": _config(record),
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
