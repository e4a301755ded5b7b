"""`docker update`: other limits and another restart policy for a container that is there."""

from pydantic import JsonValue

from labfleet_api.core import limits, policies
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.limits_body import LimitsBody
from labfleet_proto.containers import ContainerSpec, Limits
from labfleet_proto.errors import ConflictError
from labfleet_proto.restarts import Restart

_SWAP_IS_LESS = (
    "Memory limit should be smaller than already set memoryswap limit, "
    "update the memoryswap at the same time"
)


class UpdateBody(LimitsBody):
    """Body of `POST /containers/{id}/update`; what says nothing stays as it is."""


def updated(spec: ContainerSpec, body: UpdateBody) -> ContainerSpec:
    """The specification after an update.

    Raises InvalidRequestError, ConflictError, NotImplementedYetError, in docker's words.
    """
    body.refuse_unserved()
    _refuse_conflicts(spec, body)
    changes: dict[str, object] = {
        "limits": _limits(spec.limits, body),
        "asked_host_config": _asked(spec, body),
    }
    policy = policies.restart_policy(body.RestartPolicy)
    if body.RestartPolicy is not None and body.RestartPolicy.Name:
        if spec.auto_remove and policy.name is not Restart.NO:
            raise ConflictError(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        changes["restart"] = policy
    return spec.model_copy(update=changes)


def _refuse_conflicts(spec: ContainerSpec, body: UpdateBody) -> None:
    """Moby's rules between what was asked at create and what is asked now."""
    asked = spec.asked_host_config
    swap = asked.get("MemorySwap")
    rules = (
        (
            body.NanoCpus and asked.get("CpuPeriod"),
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            body.NanoCpus and asked.get("CpuQuota"),
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            body.CpuPeriod and asked.get("NanoCpus"),
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        (
            body.CpuQuota and asked.get("NanoCpus"),
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            isinstance(swap, int) and 0 < swap < body.Memory and not body.MemorySwap,
            _SWAP_IS_LESS,
        ),
    )
    for is_broken, words in rules:
        if is_broken:
            raise ConflictError(words)


def _asked(spec: ContainerSpec, body: UpdateBody) -> dict[str, JsonValue]:
    """What inspect echoes: what was asked at create, and since."""
    said = {
        name: getattr(body, name)
        for name in type(body).model_fields
        if name not in ("RestartPolicy", "KernelMemory") and getattr(body, name)
    }
    return {**spec.asked_host_config, **said}


def _limits(old: Limits, body: UpdateBody) -> Limits:
    """Limits with what was asked; they are checked as those of a new container."""
    period, quota = body.CpuPeriod or old.cpu_period_us, body.CpuQuota or old.cpu_quota_us
    is_quota = not body.NanoCpus and bool(body.CpuPeriod or body.CpuQuota)
    if body.CpuPeriod and not quota:
        quota = old.cpu_millis * body.CpuPeriod // 1000  # the same share of the new period
    is_memory = bool(body.Memory or body.MemorySwap or body.MemoryReservation)
    asked = limits.limits(
        HostConfigBody(
            Memory=body.Memory or (old.memory_bytes if is_memory else 0),
            MemorySwap=body.MemorySwap,
            MemoryReservation=body.MemoryReservation,
            MemorySwappiness=body.MemorySwappiness,
            NanoCpus=body.NanoCpus,
            CpuPeriod=period if is_quota else body.CpuPeriod,
            CpuQuota=quota if is_quota else body.CpuQuota,
            CpuShares=body.CpuShares,
            CpusetCpus=body.CpusetCpus,
            CpusetMems=body.CpusetMems,
            BlkioWeight=body.BlkioWeight,
            PidsLimit=body.PidsLimit,
        )
    )
    changes: dict[str, object] = {}
    if body.Memory:
        changes["memory_bytes"] = asked.memory_bytes
    if body.NanoCpus or is_quota:
        for name in ("cpu_millis", "cpu_period_us", "cpu_quota_us"):
            changes[name] = getattr(asked, name)
    if body.PidsLimit is not None:
        changes["pids"] = asked.pids
    for field, name in (
        (body.MemoryReservation, "memory_reservation_bytes"),
        (body.CpuShares, "cpu_shares"),
        (body.CpusetCpus, "cpuset_cpus"),
        (body.CpusetMems, "cpuset_mems"),
        (body.BlkioWeight, "blkio_weight"),
    ):
        if field:
            changes[name] = getattr(asked, name)
    return old.model_copy(update=changes)
