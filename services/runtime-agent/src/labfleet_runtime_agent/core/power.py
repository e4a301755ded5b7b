"""What operators' containers have of their host, as parts of the OCI runtime-spec."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from labfleet_proto.containers import ContainerRecord, ContainerSpec
from labfleet_proto.errors import ForbiddenError
from labfleet_proto.ids import OPERATORS
from labfleet_proto.powers import UNCONFINED, DeviceThrottle
from labfleet_proto.privileges import GRANTABLE_CAPABILITIES, KNOWN_CAPABILITIES
from labfleet_proto.privileges import capabilities as allowed
from labfleet_runtime_agent.core import seccomp, seccomp_document

EVERYTHING = "a *:* rwm"
Json = dict[str, Any]


@dataclass(frozen=True)
class Device:
    """A device node of the host, and where it is in the container."""

    target: str
    kind: str
    """`c` or `b`."""
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str = "rwm"


@dataclass(frozen=True)
class Throttle:
    """A limit for one disk, by its numbers."""

    wish: DeviceThrottle
    major: int
    minor: int


@dataclass(frozen=True)
class HostPower:
    """What the host itself has to give."""

    capabilities: frozenset[str] = KNOWN_CAPABILITIES
    """Of the agent: nobody has more."""
    devices: tuple[Device, ...] = ()
    kernel: str = "6.1"
    least_oom_score_adj: int = 0
    """The kernel takes no less of the agent."""


def check_owner(record: ContainerRecord) -> None:
    """Raise ForbiddenError for a record that reaches beyond a container and is no operators'.

    The api writes none; the host does not rely on it.
    """
    spec = record.spec
    if record.tenant != OPERATORS and (spec.powers is not None or spec.host_binds):
        raise ForbiddenError(
            f"container {record.name} asks for its host itself: only operators' containers may"
        )


def capabilities(
    spec: ContainerSpec, host: HostPower, *, is_privileged: bool = False
) -> tuple[str, ...]:
    """Return the names without `CAP_`, sorted. Raises ForbiddenError outside the allow-list."""
    powers = spec.powers
    most = host.capabilities
    if powers is None or not powers.has_host_ids:  # a user namespace of its own has them all
        most = KNOWN_CAPABILITIES
    if is_privileged or (powers is not None and powers.is_privileged):
        return tuple(sorted(most))
    if powers is None:
        return allowed(spec.cap_add, spec.cap_drop)
    found = allowed(spec.cap_add, spec.cap_drop, KNOWN_CAPABILITIES)
    return tuple(name for name in found if name in most)


def filter_of(spec: ContainerSpec, held: Collection[str], host: HostPower) -> Json | None:
    """The filter of system calls; None: none."""
    powers = spec.powers
    asked = powers.seccomp if powers is not None else ""
    if asked == UNCONFINED or (not asked and powers is not None and powers.is_privileged):
        return None
    if asked:
        return seccomp_document.converted(asked, held, host.kernel)
    more = set(held) - GRANTABLE_CAPABILITIES
    return seccomp.profile(with_ptrace="SYS_PTRACE" in held, beyond=more)


def masked(spec: ContainerSpec, own: Collection[str]) -> list[str]:
    """Paths that are hidden."""
    instead = spec.powers.masked_paths if spec.powers is not None else None
    return _paths(spec, own, spec.hidden_paths, instead)


def read_only(spec: ContainerSpec, own: Collection[str]) -> list[str]:
    """Paths that cannot be written."""
    instead = spec.powers.read_only_paths if spec.powers is not None else None
    return _paths(spec, own, spec.read_only_paths, instead)


def _paths(
    spec: ContainerSpec,
    own: Collection[str],
    added: Collection[str],
    instead: Collection[str] | None,
) -> list[str]:
    if spec.powers is not None and spec.powers.is_privileged:
        return []
    if instead is not None:
        return list(instead)
    return [*own, *(path for path in added if path not in own)]


def devices(host: HostPower) -> list[Json]:
    """The device nodes to make."""
    return [
        {
            "path": each.target,
            "type": each.kind,
            "major": each.major,
            "minor": each.minor,
            "fileMode": each.mode,
            "uid": each.uid,
            "gid": each.gid,
        }
        for each in host.devices
    ]


def device_rules(spec: ContainerSpec, host: HostPower) -> tuple[str, ...]:
    """What the devices' control group allows beside the usual, one line each."""
    if spec.powers is None:
        return ()
    if spec.powers.is_privileged:
        return (EVERYTHING,)
    nodes = (f"{each.kind} {each.major}:{each.minor} {each.access}" for each in host.devices)
    return (*nodes, *spec.powers.device_rules)


def is_open(spec: ContainerSpec) -> bool:
    """Whether what is mounted may hold devices and programs with another's powers, as docker has it."""
    return spec.powers is not None and spec.powers.has_host_ids
