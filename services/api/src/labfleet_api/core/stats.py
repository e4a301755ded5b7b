"""One sample of a container's use in docker's shape."""

from typing import Any

from labfleet_api.core.times import rfc3339
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.runtime import ContainerStats


def _cpu(sample: ContainerStats | None) -> dict[str, Any]:
    if sample is None:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }
    return {
        "cpu_usage": {
            "total_usage": sample.cpu_total_ns,
            "usage_in_kernelmode": sample.cpu_system_ns,
            "usage_in_usermode": sample.cpu_user_ns,
        },
        "system_cpu_usage": sample.host_cpu_ns,
        "online_cpus": sample.online_cpus,
        "throttling_data": {
            "periods": 0,
            "throttled_periods": sample.throttled_periods,
            "throttled_time": sample.throttled_ns,
        },
    }


def stats_json(
    record: ContainerRecord, now: ContainerStats, before: ContainerStats | None
) -> dict[str, Any]:
    """Shape of `GET /containers/{id}/stats`; `before` is the sample one second earlier, if any."""
    return {
        "name": f"/{record.name}",
        "id": record.id,
        "read": rfc3339(now.read_at_ns),
        "preread": rfc3339(before.read_at_ns if before else 0),
        "pids_stats": {"current": now.pids, "limit": now.pids_limit},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"major": 0, "minor": 0, "op": "read", "value": now.read_bytes},
                {"major": 0, "minor": 0, "op": "write", "value": now.written_bytes},
            ]
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": {
            "usage": now.memory_bytes,
            "limit": now.memory_limit_bytes,
            "stats": {
                "inactive_file": now.memory_cache_bytes,
                "total_inactive_file": now.memory_cache_bytes,
            },
        },
        "networks": {name: each.model_dump() for name, each in now.interfaces.items()},
    }
