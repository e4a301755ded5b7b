"""What only operators may ask for (`docker-api.md`), as powers over the container's host.

What would be of no use with user ids of the container's own brings the host's: dockerd with user
namespaces demands `--userns=host` beside it, here it is understood.
"""

import json
import re
from collections.abc import Iterator

from pydantic import JsonValue

from labfleet_api.core import security
from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.powers import (
    UNCONFINED,
    DeviceThrottle,
    DeviceWish,
    HostPowers,
    Namespace,
)
from labfleet_proto.privileges import (
    GRANTABLE_CAPABILITIES,
    KNOWN_CAPABILITIES,
    SYSCTLS_OF_A_NAMESPACE,
    capabilities,
)

MODES: tuple[tuple[str, Namespace], ...] = (
    ("NetworkMode", "network"),
    ("PidMode", "pid"),
    ("IpcMode", "ipc"),
    ("UTSMode", "uts"),
    ("UsernsMode", "user"),
    ("CgroupnsMode", "cgroup"),
)
_THROTTLES = (
    ("BlkioWeightDevice", "weight", "Weight"),
    ("BlkioDeviceReadBps", "read_bps", "Rate"),
    ("BlkioDeviceWriteBps", "write_bps", "Rate"),
    ("BlkioDeviceReadIOps", "read_iops", "Rate"),
    ("BlkioDeviceWriteIOps", "write_iops", "Rate"),
)
_RULE = re.compile(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}")
_ACCESS = re.compile(r"[rwm]{1,3}")
_LONGEST_PROFILE = 256 << 10
_KERNELS_PERIOD_US = 1_000_000
_LONGEST_PERIOD_US = 60 * 1_000_000


def powers(host: HostConfigBody) -> HostPowers | None:
    """The powers of a request; None if it asks for none. Raises InvalidRequestError."""
    period_us, runtime_us = _real_time(host)
    found = HostPowers(
        is_privileged=host.Privileged,
        rt_period_us=period_us,
        rt_runtime_us=runtime_us,
        devices=tuple(_devices(host)),
        device_rules=_rules(host.DeviceCgroupRules or ()),
        throttles=tuple(_throttles(host)),
        seccomp=_profile(security.profile(host.SecurityOpt or ())),
        masked_paths=_paths("MaskedPaths", host),
        read_only_paths=_paths("ReadonlyPaths", host),
    )
    shared = frozenset(kind for field, kind in MODES if getattr(host, field) == "host")
    capabilities(host.CapAdd or (), host.CapDrop or (), KNOWN_CAPABILITIES)
    added = {name.upper().removeprefix("CAP_") for name in host.CapAdd or ()}
    beyond = host.Privileged or added - GRANTABLE_CAPABILITIES or _lets_mounts_out(host)
    if beyond or shared or found.devices or found.device_rules:
        shared |= {"user"}
    found = found.model_copy(update={"namespaces": shared})
    _refuse_sysctls(host, found)
    is_of_host = any(not name.startswith(SYSCTLS_OF_A_NAMESPACE) for name in host.Sysctls or ())
    return found if found != HostPowers() or host.OomScoreAdj < 0 or is_of_host else None


def _refuse_sysctls(host: HostConfigBody, found: HostPowers) -> None:
    if "network" in found.namespaces:
        for name in host.Sysctls or ():
            if name.startswith("net."):
                raise InvalidRequestError(f'sysctl "{name}" not allowed in host network namespace')


def _lets_mounts_out(host: HostConfigBody) -> bool:
    """Whether what the container mounts below a bind is to appear on its host."""
    words = [word for text in host.Binds or () for word in text.split(":")[-1].split(",")]
    words += [each.BindOptions.Propagation for each in host.Mounts or () if each.BindOptions]
    return bool({"shared", "rshared"}.intersection(words))


def _devices(host: HostConfigBody) -> Iterator[DeviceWish]:
    for each in host.Devices or ():
        fields = _fields("Devices", each)
        source = str(fields.get("PathOnHost") or "")
        access = str(fields.get("CgroupPermissions") or "rwm")
        if not source.startswith("/") or ".." in source.split("/") or "\0" in source:
            raise InvalidRequestError(f"HostConfig.Devices: {source!r} is no absolute path")
        if _ACCESS.fullmatch(access) is None:
            raise InvalidRequestError(f"invalid device mode: {access}")
        target = str(fields.get("PathInContainer") or source)
        if not target.startswith("/") or ".." in target.split("/") or "\0" in target:
            raise InvalidRequestError(f"HostConfig.Devices: {target!r} is no absolute path")
        yield DeviceWish(source=source, target=target, access=access)


def _rules(rules: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    for rule in rules:
        if _RULE.fullmatch(rule) is None:
            raise InvalidRequestError(f"invalid device cgroup rule format: '{rule}'")
    return tuple(rules)


def _throttles(host: HostConfigBody) -> Iterator[DeviceThrottle]:
    for field, kind, name in _THROTTLES:
        for each in getattr(host, field) or ():
            fields = _fields(field, each)
            path, value = str(fields.get("Path") or ""), fields.get(name)
            if not path.startswith("/") or not isinstance(value, int) or value < 0:
                raise InvalidRequestError(f"HostConfig.{field}: {each} names no device and {name}")
            if kind == "weight" and not 10 <= value <= 1000:
                raise InvalidRequestError("Range of blkio weight is from 10 to 1000")
            yield DeviceThrottle.model_validate({"kind": kind, "path": path, "value": value})


def _real_time(host: HostConfigBody) -> tuple[int, int]:
    """Period and runtime in microseconds, in docker's rules and words."""
    period_us, runtime_us = host.CpuRealtimePeriod, host.CpuRealtimeRuntime
    for field, value in (("CpuRealtimePeriod", period_us), ("CpuRealtimeRuntime", runtime_us)):
        if not 0 <= value <= _LONGEST_PERIOD_US:
            raise InvalidRequestError(
                f"HostConfig.{field}: {value} is not from 0 to {_LONGEST_PERIOD_US} microseconds"
            )
    if runtime_us > (period_us or _KERNELS_PERIOD_US):
        raise InvalidRequestError(
            "cpu real-time runtime cannot be higher than cpu real-time period"
        )
    return period_us, runtime_us


def _fields(field: str, value: JsonValue) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"HostConfig.{field}: {value!r} is no object")
    return value


def _profile(text: str) -> str:
    """A seccomp profile that can be read. Raises InvalidRequestError in docker's words."""
    if text in ("", UNCONFINED):
        return text
    if len(text) > _LONGEST_PROFILE:
        raise InvalidRequestError(f"seccomp profile: longer than {_LONGEST_PROFILE} bytes")
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise InvalidRequestError(f"Decoding seccomp profile failed: {exc}") from exc
    if not isinstance(document, dict) or not document.get("defaultAction"):
        raise InvalidRequestError("Decoding seccomp profile failed: it has no defaultAction")
    return text


def _paths(field: str, host: HostConfigBody) -> tuple[str, ...] | None:
    if security.is_open(host.SecurityOpt or ()):
        return ()
    paths: list[str] | None = getattr(host, field)
    return None if paths is None else security.absolute(field, paths)
