"""`HostConfig` and `Config` of inspect: what was asked, and the limits in force."""

from typing import Any

from labfleet_api.core.links import shown
from labfleet_proto.containers import ContainerRecord, ContainerSpec

Json = dict[str, Any]

_NOTHING_ASKED: Json = {
    "Binds": None,
    "ContainerIDFile": "",
    "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "default",
    "PortBindings": {},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "VolumeDriver": "",
    "VolumesFrom": None,
    "ConsoleSize": [0, 0],
    "CapAdd": None,
    "CapDrop": None,
    "CgroupnsMode": "private",
    "Dns": [],
    "DnsOptions": [],
    "DnsSearch": [],
    "ExtraHosts": None,
    "GroupAdd": None,
    "IpcMode": "private",
    "Cgroup": "",
    "Links": None,
    "OomScoreAdj": 0,
    "PidMode": "",
    "Privileged": False,
    "PublishAllPorts": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "UTSMode": "",
    "UsernsMode": "",
    "ShmSize": 0,
    "Runtime": "crun",
    "Isolation": "",
    "CpuShares": 0,
    "Memory": 0,
    "NanoCpus": 0,
    "CgroupParent": "",
    "BlkioWeight": 0,
    "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [],
    "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [],
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpusetCpus": "",
    "CpusetMems": "",
    "Devices": [],
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemoryReservation": 0,
    "MemorySwap": 0,
    "MemorySwappiness": None,
    "OomKillDisable": None,
    "PidsLimit": None,
    "Ulimits": None,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
    "MaskedPaths": None,
    "ReadonlyPaths": None,
}
"""Docker's fields, in its order."""


def host_config(record: ContainerRecord) -> Json:
    """`HostConfig`: as asked, but with the limits in force."""
    asked = record.spec.asked_host_config
    found = _NOTHING_ASKED | asked | _in_force(record.spec)
    links = asked.get("Links")
    if isinstance(links, list):
        found["Links"] = shown(record.name, map(str, links))
    return found


def _in_force(spec: ContainerSpec) -> Json:
    """What the host holds the container to, whatever was asked."""
    limits, asked = spec.limits, spec.asked_host_config
    found: Json = {
        "LogConfig": {"Type": spec.log.driver, "Config": spec.log.options},
        "NetworkMode": spec.network_mode,
        "RestartPolicy": {
            "Name": spec.restart.name,
            "MaximumRetryCount": spec.restart.most_retries,
        },
        "AutoRemove": spec.auto_remove,
        "Init": spec.with_init,
        "ShmSize": limits.shm_bytes,
        "CpuShares": limits.cpu_shares or 0,
        "Memory": limits.memory_bytes,
        "MemoryReservation": limits.memory_reservation_bytes,
        "MemorySwap": asked.get("MemorySwap") or limits.memory_bytes,
        "PidsLimit": limits.pids,
        "CpusetCpus": limits.cpuset_cpus or "",
        "CpusetMems": limits.cpuset_mems or "",
    }
    if limits.cpu_quota_us:
        found |= {"CpuPeriod": limits.cpu_period_us, "CpuQuota": limits.cpu_quota_us}
    else:
        found["NanoCpus"] = limits.cpu_millis * 1_000_000
    return found


def config(record: ContainerRecord) -> Json:
    """`Config` of inspect."""
    spec = record.spec
    shown: Json = {
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
        "Volumes": {m.target: {} for m in spec.mounts if m.is_anonymous} or None,
        "WorkingDir": spec.working_dir,
        "Entrypoint": list(spec.entrypoint) or None,
        "OnBuild": None,
        "Labels": spec.labels,
        "StopSignal": spec.stop_signal,
        "StopTimeout": spec.stop_timeout_s,
        **{
            name: value
            for name, value in spec.asked_config.items()
            if name in ("OnBuild", "Shell", "MacAddress")
        },
    }
    check = spec.healthcheck
    if check is not None:
        times = {
            "Interval": check.interval_ns,
            "Timeout": check.timeout_ns,
            "StartPeriod": check.start_period_ns,
            "StartInterval": check.start_interval_ns,
            "Retries": check.retries,
        }
        given = {name: value for name, value in times.items() if value}
        shown["Healthcheck"] = {"Test": list(check.test), **given}
    return shown
