"""Control groups of this host's containers: v1 (also hybrid) and v2 behind one port.

crun is told to leave cgroups alone (`--cgroup-manager=disabled`): the agent makes the group, puts
the container's init into it before it runs, and removes it after the end.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from labfleet_proto.containers import Limits
from labfleet_proto.runtime import ContainerStats
from labfleet_runtime_agent.adapters.cgroup_v1 import CgroupV1
from labfleet_runtime_agent.adapters.cgroup_v2 import CgroupV2
from labfleet_runtime_agent.core.power import Throttle


class Cgroups(Protocol):
    """The groups of one host. All calls block for well under a millisecond, `remove` up to 2 s."""

    @property
    def feature(self) -> str:
        """`cgroup-v1` or `cgroup-v2`, as published in the host's record."""

    def make(self, name: str, limits: Limits) -> None:
        """Make the group with its limits; existing limits are set anew."""

    def allow_devices(self, name: str, rules: Sequence[str]) -> None:
        """Allow more devices than containers have; `a *:* rwm` allows all."""

    def throttle(self, name: str, throttles: Sequence[Throttle]) -> None:
        """Limit what the group does with single disks. Raises InternalError naming what refused."""

    def real_time(self, name: str, period_us: int, runtime_us: int) -> None:
        """Let processes with real-time priority run so long of each period.

        Raises InvalidRequestError where the kernel has no such scheduling for groups, InternalError.
        """

    def enter_files(self, name: str) -> list[Path]:
        """Files into which a process writes its pid (or 0) to enter."""

    def enter(self, name: str, pid: int) -> None:
        """Put a process into the group."""

    def pids(self, name: str) -> set[int]:
        """Processes in the group; empty if it does not exist."""

    def remove(self, name: str) -> None:
        """Remove the group once its processes are gone; absent is success."""

    def set_limits(self, name: str, limits: Limits) -> None:
        """Change the limits of a group that is in use. Raises InternalError naming what refused."""

    def freeze(self, name: str) -> None:
        """Stop every process of the group; returns when all have stopped. Waits up to 2 s."""

    def thaw(self, name: str) -> None:
        """Let them go on; again is nothing."""

    def is_frozen(self, name: str) -> bool:
        """Whether its processes are stopped."""

    def memory_in_use(self, name: str) -> int:
        """Bytes that a lower limit could not take back."""

    def was_oom_killed(self, name: str) -> bool:
        """Whether the kernel killed a process of the group for lack of memory."""

    def sample(self, name: str) -> ContainerStats:
        """Use of resources now; interfaces are left empty."""

    def names(self) -> set[str]:
        """All groups of containers on this host."""


def detect(parent: str, root: Path = Path("/sys/fs/cgroup")) -> Cgroups:
    """Return the kind that this host mounts."""
    if (root / "cgroup.controllers").exists():
        return CgroupV2(root, parent)
    return CgroupV1(root, parent)
