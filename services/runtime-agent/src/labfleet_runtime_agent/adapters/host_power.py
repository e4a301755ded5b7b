"""What this host has to give to operators' containers: capabilities, devices, disks."""

import functools
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from labfleet_proto.containers import ContainerSpec
from labfleet_proto.errors import InternalError
from labfleet_proto.powers import DeviceThrottle, DeviceWish
from labfleet_runtime_agent.adapters import host_facts
from labfleet_runtime_agent.core.power import Device, HostPower, Throttle

_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
).split()
"""By their numbers (capability.h)."""
_NOT_OF_A_CONTAINER = frozenset(
    {"pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"}
)
"""Of /dev; every container has its own, or none."""
_ALL = DeviceWish(source="/dev", target="/dev")


def host_power(spec: ContainerSpec) -> HostPower:
    """What a container of this spec may have of this host. Raises InternalError in docker's words."""
    powers = spec.powers
    found: list[Device] = []
    if powers is not None:
        wishes = (*((_ALL,) if powers.is_privileged else ()), *powers.devices)
        by_target = {device.target: device for wish in wishes for device in _devices(wish)}
        found = list(by_target.values())
    return replace(own(), devices=tuple(found))


def own() -> HostPower:
    """What needs not be asked for by name."""
    return HostPower(
        capabilities=_own_capabilities(),
        kernel=host_facts.kernel(),
        least_oom_score_adj=_least_oom_score_adj(),
    )


def throttles(spec: ContainerSpec) -> tuple[Throttle, ...]:
    """A container's limits for single disks. Raises InternalError in docker's words."""
    return tuple(_throttle(wish) for wish in (spec.powers.throttles if spec.powers else ()))


def _throttle(wish: DeviceThrottle) -> Throttle:
    try:
        number = Path(wish.path).stat().st_rdev
    except OSError as exc:
        raise InternalError(f"{wish.path}: {exc.strerror}".lower()) from exc
    return Throttle(wish, os.major(number), os.minor(number))


@functools.cache
def _own_capabilities() -> frozenset[str]:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for bit, name in enumerate(_CAPABILITIES) if mask >> bit & 1)
    return frozenset()


def _least_oom_score_adj() -> int:
    """Who may not raise limits may not go below its own score."""
    if "SYS_RESOURCE" in _own_capabilities():
        return -1000
    return int(Path("/proc/self/oom_score_adj").read_text())


def _devices(wish: DeviceWish) -> Iterator[Device]:
    source = Path(wish.source)
    try:
        about = source.stat()
        if not stat.S_ISDIR(about.st_mode):
            yield _device(source, wish.target, wish.access, about)
            return
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise InternalError(
            f'error gathering device information while adding custom device "{source}": '
            f"{reason}".lower()
        ) from exc
    for directory, names, files in os.walk(source):
        names[:] = [name for name in names if name not in _NOT_OF_A_CONTAINER]
        for name in files:
            node = Path(directory, name)
            target = f"{wish.target.rstrip('/')}/{node.relative_to(source)}"
            about = node.lstat()
            if name not in _NOT_OF_A_CONTAINER and _is_device(about):
                yield _device(node, target, wish.access, about)


def _is_device(about: os.stat_result) -> bool:
    return stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode)


def _device(source: Path, target: str, access: str, about: os.stat_result) -> Device:
    if not _is_device(about):
        raise ValueError(f"{source}: not a device node")
    return Device(
        target=target,
        kind="c" if stat.S_ISCHR(about.st_mode) else "b",
        major=os.major(about.st_rdev),
        minor=os.minor(about.st_rdev),
        mode=stat.S_IMODE(about.st_mode),
        uid=about.st_uid,
        gid=about.st_gid,
        access=access,
    )
