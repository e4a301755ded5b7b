"""`HostConfig` and `Config` of inspect: what was asked, and the limits in force."""

from typing import Any

from labfleet_api.core.network_views import port_map
from labfleet_proto.containers import ContainerRecord

Json = dict[str, Any]


def host_config(record: ContainerRecord) -> Json:
    """`HostConfig`, with the limits in force."""
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


def config(record: ContainerRecord) -> Json:
    """`Config`."""
    """`Config` of inspect."""
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
