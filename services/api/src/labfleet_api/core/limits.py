"""Limits of a container: what was asked, or the default, within what may be asked."""

import re

from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto.containers import Limits
from labfleet_proto.errors import InvalidRequestError

DEFAULT_MEMORY_BYTES = 512 << 20
LEAST_MEMORY_BYTES = 6 << 20
DEFAULT_CPU_MILLIS = 1000
DEFAULT_PIDS = 512
MOST_FILES = 20_000
_CPUSET = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")


def limits(host: HostConfigBody) -> Limits:
    """Limits of a request; none is left out. Raises InvalidRequestError."""
    for name in ("Memory", "NanoCpus", "CpuPeriod", "CpuShares", "MemoryReservation"):
        if getattr(host, name) < 0:
            raise InvalidRequestError(f"HostConfig.{name}: {getattr(host, name)} is negative")
    _check_memory(host)
    if host.BlkioWeight and not 10 <= host.BlkioWeight <= 1000:
        raise InvalidRequestError("Range of blkio weight is from 10 to 1000")
    if host.CpusetMems and _CPUSET.fullmatch(host.CpusetMems) is None:
        raise InvalidRequestError(f"Invalid value {host.CpusetMems} for cpuset mems")
    if host.CpusetCpus and _CPUSET.fullmatch(host.CpusetCpus) is None:
        raise InvalidRequestError(f"Invalid value {host.CpusetCpus} for cpuset cpus")
    pids = host.PidsLimit or 0  # what is below 0 says "as many as may be", as in docker
    return Limits(
        memory_bytes=host.Memory or DEFAULT_MEMORY_BYTES,
        cpu_millis=_cpu_millis(host),
        pids=pids if pids > 0 else DEFAULT_PIDS,
        cpu_period_us=host.CpuPeriod if host.CpuQuota > 0 else 0,
        cpu_quota_us=max(host.CpuQuota, 0),
        cpu_shares=host.CpuShares or None,
        cpuset_cpus=host.CpusetCpus or None,
        shm_bytes=host.ShmSize or (64 << 20),
        nofile=_nofile(host),
        memory_reservation_bytes=min(host.MemoryReservation, host.Memory or DEFAULT_MEMORY_BYTES),
        cpuset_mems=host.CpusetMems or None,
        blkio_weight=host.BlkioWeight or None,
    )


def _nofile(host: HostConfigBody) -> int:
    asked = [each.Hard for each in host.Ulimits or () if each.Name == "nofile" and each.Hard >= 0]
    return min([MOST_FILES, *asked])


def _check_memory(host: HostConfigBody) -> None:
    """Docker's rules between the fields of memory. Raises InvalidRequestError."""
    rules = (
        (0 < host.Memory < LEAST_MEMORY_BYTES, "Minimum memory limit allowed is 6MB"),
        (
            0 < host.MemorySwap < host.Memory,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            host.Memory == 0 and host.MemorySwap > 0,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            0 < host.MemoryReservation < LEAST_MEMORY_BYTES,
            "Minimum memory reservation allowed is 6MB",
        ),
        (
            0 < host.Memory < host.MemoryReservation,
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            not -1 <= (host.MemorySwappiness or 0) <= 100,
            f"Invalid value: {host.MemorySwappiness}, valid memory swappiness range is 0-100",
        ),
        (
            not -1000 <= host.OomScoreAdj <= 1000,
            f"Invalid value {host.OomScoreAdj}, range for oom score adj is [-1000, 1000]",
        ),
        (host.ShmSize < 0, "SHM size can not be less than 0"),
    )
    for is_broken, words in rules:
        if is_broken:
            raise InvalidRequestError(words)


def _cpu_millis(host: HostConfigBody) -> int:
    if host.NanoCpus and (host.CpuQuota > 0 or host.CpuPeriod > 0):
        raise InvalidRequestError(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set"
        )
    if host.NanoCpus:
        if host.NanoCpus < 10_000_000:
            raise InvalidRequestError("HostConfig.NanoCpus: the least is 0.01 CPUs")
        return host.NanoCpus // 1_000_000
    period = host.CpuPeriod or 100_000
    if not 1000 <= period <= 1_000_000:
        raise InvalidRequestError(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.CpuQuota < 1000:
        raise InvalidRequestError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.CpuQuota > 0:
        return max(10, host.CpuQuota * 1000 // period)
    return DEFAULT_CPU_MILLIS
