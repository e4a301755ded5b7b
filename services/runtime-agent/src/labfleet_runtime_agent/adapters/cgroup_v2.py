"""Control groups of version 2: the unified hierarchy."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labfleet_proto.containers import Limits
from labfleet_proto.errors import InternalError, InvalidRequestError
from labfleet_proto.runtime import ContainerStats, DeviceIo
from labfleet_runtime_agent.adapters import real_time
from labfleet_runtime_agent.adapters.cgroup_files import (
    PERIOD_US,
    child_names,
    devices_of,
    read_int,
    read_table,
    remove_dir,
    wait_for,
    write,
    write_if_there,
)
from labfleet_runtime_agent.core.power import Throttle

_V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_IO_MAX = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


def _pass_down(group: Path) -> None:
    """Let the groups below use the controllers; one that the kernel lacks must not cost the others."""
    here = group / "cgroup.controllers"
    known = here.read_text().split() if here.exists() else _V2_CONTROLLERS
    words = " ".join(f"+{name}" for name in _V2_CONTROLLERS if name in known)
    write_if_there(group / "cgroup.subtree_control", words)


@dataclass(frozen=True)
class CgroupV2:
    """The unified hierarchy."""

    root: Path
    parent: str
    feature: str = "cgroup-v2"

    def _path(self, name: str) -> Path:
        return self.root / self.parent / name

    def make(self, name: str, limits: Limits) -> None:
        """Make the group. Raises InternalError naming the file that refused."""
        path = self._path(name)
        path.mkdir(parents=True, exist_ok=True)
        for above in reversed(path.relative_to(self.root).parents):
            _pass_down(self.root / above)
        self.set_limits(name, limits)

    def allow_devices(self, name: str, rules: Sequence[str]) -> None:
        """Nothing to do: this hierarchy has no list of devices, capabilities keep them away."""

    def throttle(self, name: str, throttles: Sequence[Throttle]) -> None:
        """Files `io.max` and `io.weight`."""
        for each in throttles:
            device, value = f"{each.major}:{each.minor}", each.wish.value
            if each.wish.kind == "weight":
                weight = 1 + (value - 10) * 9999 // 990
                write_if_there(self._path(name) / "io.weight", f"{device} {weight}")
            else:
                write(self._path(name) / "io.max", f"{device} {_IO_MAX[each.wish.kind]}={value}")

    def real_time(self, name: str, period_us: int, runtime_us: int) -> None:  # noqa: ARG002 - the port's
        """This hierarchy has none."""
        raise InvalidRequestError(real_time.MISSING)

    def set_limits(self, name: str, limits: Limits) -> None:
        """Set all limits anew. Raises InternalError naming the file that refused."""
        path = self._path(name)
        write(path / "memory.max", str(limits.memory_bytes))
        write_if_there(path / "memory.swap.max", "0")
        write_if_there(path / "memory.oom.group", "0")
        if limits.memory_reservation_bytes:
            write_if_there(path / "memory.low", str(limits.memory_reservation_bytes))
        quota = max(limits.cpu_millis * PERIOD_US // 1000, 1000)
        write(path / "cpu.max", f"{quota} {PERIOD_US}")
        if limits.cpu_shares:
            weight = 1 + (max(min(limits.cpu_shares, 262_144), 2) - 2) * 9999 // 262_142
            write(path / "cpu.weight", str(weight))
        if limits.cpuset_cpus:
            write(path / "cpuset.cpus", limits.cpuset_cpus)
        if limits.cpuset_mems:
            write(path / "cpuset.mems", limits.cpuset_mems)
        if limits.blkio_weight:
            weight = 1 + (limits.blkio_weight - 10) * 9999 // 990
            write_if_there(path / "io.weight", f"default {weight}")
        write(path / "pids.max", str(limits.pids))

    def freeze(self, name: str) -> None:
        """Freeze the group."""
        write(self._path(name) / "cgroup.freeze", "1")
        try:
            wait_for(lambda: self.is_frozen(name), f"pause {name}")
        except InternalError:
            self.thaw(name)
            raise

    def thaw(self, name: str) -> None:
        """Thaw the group."""
        write_if_there(self._path(name) / "cgroup.freeze", "0")

    def is_frozen(self, name: str) -> bool:
        """Field `frozen` of cgroup.events."""
        return read_table(self._path(name) / "cgroup.events").get("frozen", 0) == 1

    def memory_in_use(self, name: str) -> int:
        """Usage without the file cache, which the kernel gives up."""
        path = self._path(name)
        table = read_table(path / "memory.stat")
        cache = table.get("inactive_file", 0) + table.get("active_file", 0)
        return max(read_int(path / "memory.current") - cache, 0)

    def enter_files(self, name: str) -> list[Path]:
        """`cgroup.procs` of the group."""
        return [self._path(name) / "cgroup.procs"]

    def enter(self, name: str, pid: int) -> None:
        """Move the process."""
        write(self._path(name) / "cgroup.procs", str(pid))

    def pids(self, name: str) -> set[int]:
        """Processes of the group."""
        try:
            return {int(word) for word in (self._path(name) / "cgroup.procs").read_text().split()}
        except OSError:
            return set()

    def remove(self, name: str) -> None:
        """Remove the group."""
        remove_dir(self._path(name))

    def was_oom_killed(self, name: str) -> bool:
        """Field `oom_kill` of memory.events."""
        return read_table(self._path(name) / "memory.events").get("oom_kill", 0) > 0

    def sample(self, name: str) -> ContainerStats:
        """Read the group's counters."""
        path = self._path(name)
        cpu = read_table(path / "cpu.stat")
        table = read_table(path / "memory.stat")
        devices = self._devices(path)
        return ContainerStats(
            read_at_ns=0,
            cpu_total_ns=cpu.get("usage_usec", 0) * 1000,
            cpu_user_ns=cpu.get("user_usec", 0) * 1000,
            cpu_system_ns=cpu.get("system_usec", 0) * 1000,
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_ns=cpu.get("throttled_usec", 0) * 1000,
            memory_bytes=read_int(path / "memory.current"),
            memory_cache_bytes=table.get("inactive_file", 0),
            memory_limit_bytes=read_int(path / "memory.max"),
            pids=read_int(path / "pids.current"),
            pids_limit=read_int(path / "pids.max"),
            read_bytes=sum(each.read_bytes for each in devices),
            written_bytes=sum(each.written_bytes for each in devices),
            cgroup_version=2,
            devices=devices,
            periods=cpu.get("nr_periods", 0),
            memory_table=table,
        )

    def _devices(self, path: Path) -> tuple[DeviceIo, ...]:
        """Bytes and operations by device."""
        fields = {
            "rbytes": "read_bytes",
            "wbytes": "written_bytes",
            "rios": "reads",
            "wios": "writes",
        }
        found: dict[str, dict[str, int]] = {}
        with contextlib.suppress(OSError):
            for line in (path / "io.stat").read_text().splitlines():
                device, *words = line.split()
                pairs = (word.partition("=") for word in words)
                found[device] = {fields[k]: int(v) for k, _, v in pairs if k in fields}
        return devices_of(found)

    def names(self) -> set[str]:
        """Groups below the parent."""
        return child_names(self.root / self.parent)
