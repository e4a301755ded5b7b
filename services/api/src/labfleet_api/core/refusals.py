"""What no tenant may ask for, and what no host of a fleet has; each refusal names field and rule."""

import json
from collections.abc import Iterator
from typing import Literal

from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto import privileges
from labfleet_proto.errors import ForbiddenError, InvalidRequestError

_BLKIO_DEVICES = (
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
)
_MODES = (
    ("PidMode", "PID", ()),
    ("IpcMode", "IPC", ("private", "shareable", "none")),
    ("UTSMode", "UTS", ()),
    ("UsernsMode", "user namespace", ()),
    ("CgroupnsMode", "cgroup namespace", ("private",)),
)
JOINABLE: dict[str, Literal["pid", "ipc"]] = {"PidMode": "pid", "IpcMode": "ipc"}
"""Modes that may name another container of the tenant."""
_RUNTIMES = ("", "crun", "runc", "io.containerd.runc.v2")


def refuse_forbidden(host: HostConfigBody, *, is_operator: bool = False) -> None:
    """Raise ForbiddenError, or InvalidRequestError for what means nothing.

    What only operators may ask for is read by `powers`.
    """
    rules = (
        ("CgroupParent", host.CgroupParent, "the cgroup is chosen by the host"),
        ("Cgroup", host.Cgroup, "namespaces are never shared"),
        *(() if is_operator else _of_operators(host)),
    )
    for field, is_set, rule in rules:
        if is_set:
            raise ForbiddenError(f"HostConfig.{field}: {rule}")
    for field, word, allowed in _MODES:
        mode = str(getattr(host, field))
        if not (is_operator and mode == "host"):
            _refuse_mode(field, word, mode, allowed)
    for name in host.Annotations or {}:
        if not name:
            raise InvalidRequestError(
                "invalid Annotations: the empty string is not permitted as an annotation key"
            )
        if name.startswith("run.oci."):
            raise ForbiddenError(f"HostConfig.Annotations: {name}: the runtime takes no orders")
    if not is_operator:
        privileges.capabilities(host.CapAdd or (), host.CapDrop or ())
        privileges.check_sysctls(host.Sysctls or ())


def _of_operators(host: HostConfigBody) -> Iterator[tuple[str, object, str]]:
    """Field, whether it is set, and the rule."""
    yield "Privileged", host.Privileged, "privileged containers are not allowed"
    yield "Devices", host.Devices, "raw devices are not allowed"
    yield "DeviceCgroupRules", host.DeviceCgroupRules, "raw devices are not allowed"
    for name in ("CpuRealtimePeriod", "CpuRealtimeRuntime"):
        yield name, getattr(host, name), "real-time priority would starve the others"
    yield "OomScoreAdj", -1000 <= host.OomScoreAdj < 0, "the score may not be lowered"
    for name in _BLKIO_DEVICES:
        yield name, getattr(host, name), "the disks of a host are not a tenant's to name"


def _refuse_mode(field: str, word: str, mode: str, allowed: tuple[str, ...]) -> None:
    if mode in ("", *allowed) or (field in JOINABLE and mode.startswith("container:")):
        return
    if mode in ("host", "none", "private") or mode.startswith(("container:", "ns:")):
        raise ForbiddenError(f"HostConfig.{field}: {mode}: namespaces are never shared")
    raise InvalidRequestError(f"invalid {word} mode: {mode}")


def check_runtime(name: str) -> None:
    """Raise InvalidRequestError for a runtime that no host has."""
    if name not in _RUNTIMES:
        raise InvalidRequestError(f"unknown or invalid runtime name: {name}")


def refuse_absent(host: HostConfigBody) -> None:
    """Raise InvalidRequestError for what no host of a fleet has."""
    if host.DeviceRequests:
        first = host.DeviceRequests[0]
        sets = first.get("Capabilities") if isinstance(first, dict) else None
        wanted = json.dumps(sets or []).replace('"', "").replace(",", "")  # as Go prints it
        raise InvalidRequestError(
            f'could not select device driver "" with capabilities: {wanted}: '
            "no host of this fleet has such a device"
        )
    if host.StorageOpt:
        raise InvalidRequestError(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        )
    check_runtime(host.Runtime)
    if host.Isolation not in ("", "default"):
        raise InvalidRequestError(f"invalid isolation: {host.Isolation}: linux has only default")
