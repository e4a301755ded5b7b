"""One sample of a container's use in docker's shape."""

from typing import Any

from labfleet_api.core.times import rfc3339
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.runtime import ContainerStats

_BLKIO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


def _cpu(sample: ContainerStats | None) -> dict[str, Any]:
    """Counters of the processor; of what does not run docker sends zeros."""
    if sample is None or sample.host_cpu_ns == 0:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }
    usage: dict[str, Any] = {
        "total_usage": sample.cpu_total_ns,
        "usage_in_kernelmode": sample.cpu_system_ns,
        "usage_in_usermode": sample.cpu_user_ns,
    }
    if sample.per_cpu_ns:
        usage["percpu_usage"] = list(sample.per_cpu_ns)
    return {
        "cpu_usage": usage,
        "system_cpu_usage": sample.host_cpu_ns,
        "online_cpus": sample.online_cpus,
        "throttling_data": {
            "periods": sample.periods,
            "throttled_periods": sample.throttled_periods,
            "throttled_time": sample.throttled_ns,
        },
    }


def _blkio(sample: ContainerStats) -> dict[str, Any]:
    """Input and output by device; docker's other lists are empty where the kernel keeps none."""
    shown: dict[str, Any] = dict.fromkeys(_BLKIO)
    if sample.cgroup_version == 1:
        shown = {name: [] for name in _BLKIO}
    if sample.devices:
        lists: dict[str, list[dict[str, Any]]] = {_BLKIO[0]: [], _BLKIO[1]: []}
        for each in sample.devices:
            device = {"major": each.major, "minor": each.minor}
            read, write = ("Read", "Write") if sample.cgroup_version == 1 else ("read", "write")
            lists[_BLKIO[0]] += [
                {**device, "op": read, "value": each.read_bytes},
                {**device, "op": write, "value": each.written_bytes},
            ]
            lists[_BLKIO[1]] += [
                {**device, "op": read, "value": each.reads},
                {**device, "op": write, "value": each.writes},
            ]
        shown |= lists
    return shown


def _memory(sample: ContainerStats) -> dict[str, Any]:
    if not sample.memory_limit_bytes:
        return {}
    shown: dict[str, Any] = {
        "usage": sample.memory_bytes,
        "limit": sample.memory_limit_bytes,
        "stats": {
            "inactive_file": sample.memory_cache_bytes,
            "total_inactive_file": sample.memory_cache_bytes,
            **sample.memory_table,
        },
    }
    if sample.cgroup_version == 1:
        shown |= {"max_usage": sample.memory_most_bytes, "failcnt": sample.memory_failures}
    else:
        del shown["stats"]["total_inactive_file"]
    return shown


def _pids(sample: ContainerStats) -> dict[str, int]:
    pairs = {"current": sample.pids, "limit": sample.pids_limit}
    return {name: value for name, value in pairs.items() if value}


def stats_json(
    record: ContainerRecord, now: ContainerStats, before: ContainerStats | None
) -> dict[str, Any]:
    """Shape of `GET /containers/{id}/stats`; `before` is the sample one second earlier, if any."""
    shown = {
        "name": f"/{record.name}",
        "id": record.id,
        "read": rfc3339(now.read_at_ns),
        "preread": rfc3339(before.read_at_ns if before else 0),
        "pids_stats": _pids(now),
        "blkio_stats": _blkio(now),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now),
    }
    if now.interfaces:
        shown["networks"] = {name: each.model_dump() for name, each in now.interfaces.items()}
    return shown
