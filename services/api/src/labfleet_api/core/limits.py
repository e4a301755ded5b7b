"""Limits of a container: what was asked, or the default, within what may be asked."""

import re

from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto.containers import Limits
from labfleet_proto.errors import InvalidRequestError, NotImplementedYetError

DEFAULT_MEMORY_BYTES = 512 << 20
LEAST_MEMORY_BYTES = 6 << 20
DEFAULT_CPU_MILLIS = 1000
DEFAULT_PIDS = 512
MOST_FILES = 20_000
_CPUSET = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")


def limits(host: HostConfigBody) -> Limits:
    """Limits of a request; none is left out. Raises InvalidRequestError, NotImplementedYetError."""
    for name in ("Memory", "NanoCpus", "CpuPeriod", "CpuShares", "ShmSize"):
        if getattr(host, name) < 0:
            raise InvalidRequestError(f"HostConfig.{name}: {getattr(host, name)} is negative")
    if 0 < host.Memory < LEAST_MEMORY_BYTES:
        raise InvalidRequestError("Minimum memory limit allowed is 6MB")
    if host.CpusetCpus and _CPUSET.fullmatch(host.CpusetCpus) is None:
        raise InvalidRequestError(f"Invalid value {host.CpusetCpus} for cpuset cpus")
    pids = host.PidsLimit or 0
    if pids < -1:
        raise InvalidRequestError(f"HostConfig.PidsLimit: {pids} is below -1")
    return Limits(
        memory_bytes=host.Memory or DEFAULT_MEMORY_BYTES,
        cpu_millis=_cpu_millis(host),
        pids=pids if pids > 0 else DEFAULT_PIDS,
        cpu_shares=host.CpuShares or None,
        cpuset_cpus=host.CpusetCpus or None,
        shm_bytes=host.ShmSize or (64 << 20),
        nofile=_nofile(host),
    )


def _nofile(host: HostConfigBody) -> int:
    nofile = MOST_FILES
    for limit in host.Ulimits or ():
        if limit.Name != "nofile":
            raise NotImplementedYetError(
                f"labfleet: HostConfig.Ulimits {limit.Name} is not there yet"
            )
        hard = MOST_FILES if limit.Hard == -1 else limit.Hard
        if hard < 0 or (limit.Hard != -1 and not 0 <= limit.Soft <= hard):
            raise InvalidRequestError(
                f"HostConfig.Ulimits: nofile: soft {limit.Soft} and hard {limit.Hard}: "
                "the soft limit must be less than or equal to the hard limit"
            )
        nofile = min(nofile, hard)
    return nofile


def _cpu_millis(host: HostConfigBody) -> int:
    if host.NanoCpus and (host.CpuQuota > 0 or host.CpuPeriod > 0):
        raise InvalidRequestError(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set"
        )
    if host.NanoCpus:
        if host.NanoCpus < 10_000_000:
            raise InvalidRequestError("HostConfig.NanoCpus: the least is 0.01 CPUs")
        return host.NanoCpus // 1_000_000
    if host.CpuQuota > 0:
        period = host.CpuPeriod or 100_000
        if not 1000 <= period <= 1_000_000 or host.CpuQuota < 1000:
            raise InvalidRequestError(
                "HostConfig.CpuQuota: at least 1000 us, with a CpuPeriod of 1000 to 1000000 us"
            )
        return max(10, host.CpuQuota * 1000 // period)
    return DEFAULT_CPU_MILLIS
