"""Control groups of version 1: one hierarchy per controller."""

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labfleet_proto.containers import Limits
from labfleet_proto.errors import InternalError
from labfleet_proto.runtime import ContainerStats, DeviceIo
from labfleet_runtime_agent.adapters import real_time
from labfleet_runtime_agent.adapters.cgroup_files import (
    PERIOD_US,
    child_names,
    devices_of,
    read_int,
    read_numbers,
    read_table,
    remove_dir,
    wait_for,
    write,
    write_if_there,
)
from labfleet_runtime_agent.core import power
from labfleet_runtime_agent.core.power import Throttle

_OPEN = ".open"
_V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer", "blkio")

_DEVICES = (
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts
    "c *:* m",
    "b *:* m",
)


def _is_confined(group: Path) -> bool:
    """Whether not all devices are allowed."""
    try:
        return not (group / "devices.list").read_text().startswith("a")
    except FileNotFoundError:
        return False


def _confine_devices(group: Path) -> None:
    """Allow the listed devices only; a group that is confined already is left as it is."""
    if _is_confined(group):
        return
    write(group / "devices.deny", "a")
    for rule in _DEVICES:
        write(group / "devices.allow", rule)


@dataclass(frozen=True)
class CgroupV1:
    """One hierarchy per controller; works beside a unified tree without controllers (hybrid)."""

    root: Path
    parent: str
    feature: str = "cgroup-v1"

    def _path(self, controller: str, name: str) -> Path:
        if controller == "devices" and (found := self._open_group(name)).is_dir():
            return found
        return Path(f"{self.root}/{controller}/{self.parent}/{name}")

    def _open_group(self, name: str) -> Path:
        """In the devices' hierarchy: nobody has more than its parent, so who has more has another parent."""
        return self.root / "devices" / f"{self.parent}{_OPEN}" / name

    @functools.cached_property
    def _controllers(self) -> list[str]:
        return [name for name in _V1_CONTROLLERS if (self.root / name).is_dir()]

    def make(self, name: str, limits: Limits) -> None:
        """Make the group in every hierarchy. Raises InternalError naming the file that refused."""
        for controller in self._controllers:
            path = self._path(controller, name)
            if controller == "devices":
                # A new group takes its parent's list: one write for all containers of the host.
                path.parent.mkdir(parents=True, exist_ok=True)
                if not _is_confined(path.parent) and not child_names(path.parent):
                    _confine_devices(path.parent)
            path.mkdir(parents=True, exist_ok=True)
            if controller == "cpuset":
                self._inherit_cpuset(path)
            elif controller == "devices":
                _confine_devices(path)
        self.set_limits(name, limits)

    def allow_devices(self, name: str, rules: Sequence[str]) -> None:
        """Move the group, still empty, below a parent that allows everything."""
        group = self._open_group(name)
        if group.is_dir() or "devices" not in self._controllers:
            return
        remove_dir(self._path("devices", name))
        group.mkdir(parents=True)
        if power.EVERYTHING not in rules:
            _confine_devices(group)
            for rule in rules:
                write(group / "devices.allow", rule)

    def throttle(self, name: str, throttles: Sequence[Throttle]) -> None:
        """Files of the throttling layer, and the scheduler's weights where the kernel has them."""
        group = self._path("blkio", name)
        for each in throttles:
            value = f"{each.major}:{each.minor} {each.wish.value}"
            if each.wish.kind == "weight":
                for file in ("blkio.weight_device", "blkio.bfq.weight_device"):
                    write_if_there(group / file, value)
            else:
                write(group / f"blkio.throttle.{each.wish.kind}_device", value)

    def real_time(self, name: str, period_us: int, runtime_us: int) -> None:
        """In the hierarchy of processors, whose groups give what they have been given."""
        real_time.grant(self.root / "cpu", self._path("cpu", name), period_us, runtime_us)

    def set_limits(self, name: str, limits: Limits) -> None:
        """Set all limits anew. Raises InternalError naming the file that refused."""
        self._limit_memory(self._path("memory", name), limits.memory_bytes)
        cpu = self._path("cpu", name)
        write(cpu / "cpu.cfs_period_us", str(PERIOD_US))
        write(cpu / "cpu.cfs_quota_us", str(max(limits.cpu_millis * PERIOD_US // 1000, 1000)))
        if limits.cpu_shares:
            write(cpu / "cpu.shares", str(limits.cpu_shares))
        if limits.cpuset_cpus:
            write(self._path("cpuset", name) / "cpuset.cpus", limits.cpuset_cpus)
        write(self._path("pids", name) / "pids.max", str(limits.pids))
        self._write_wishes(name, limits)

    def _write_wishes(self, name: str, limits: Limits) -> None:
        """What need not be there in every kernel."""
        memory = self._path("memory", name)
        if limits.memory_reservation_bytes:
            write_if_there(
                memory / "memory.soft_limit_in_bytes", str(limits.memory_reservation_bytes)
            )
        if limits.cpuset_mems:
            write(self._path("cpuset", name) / "cpuset.mems", limits.cpuset_mems)
        if limits.blkio_weight:
            for file in ("blkio.weight", "blkio.bfq.weight"):
                write_if_there(self._path("blkio", name) / file, str(limits.blkio_weight))

    def _limit_memory(self, memory: Path, size: int) -> None:
        """Memory, and memory with swap: the second may never be the smaller one."""
        limit, with_swap = memory / "memory.limit_in_bytes", memory / "memory.memsw.limit_in_bytes"
        pair = [limit, with_swap] if with_swap.exists() else [limit]
        for file in reversed(pair) if size > read_int(limit) else pair:
            write(file, str(size))
        write_if_there(memory / "memory.swappiness", "0")

    def freeze(self, name: str) -> None:
        """Freeze the group of the freezer."""
        state = self._path("freezer", name) / "freezer.state"
        write(state, "FROZEN")
        try:
            wait_for(lambda: self.is_frozen(name), f"pause {name}")
        except InternalError:
            write(state, "THAWED")
            raise

    def thaw(self, name: str) -> None:
        """Thaw the group of the freezer."""
        write_if_there(self._path("freezer", name) / "freezer.state", "THAWED")

    def is_frozen(self, name: str) -> bool:
        """State FROZEN; FREEZING is not there yet."""
        try:
            state = (self._path("freezer", name) / "freezer.state").read_text()
        except OSError:
            return False
        return state.strip() == "FROZEN"

    def memory_in_use(self, name: str) -> int:
        """Usage without the file cache, which the kernel gives up."""
        memory = self._path("memory", name)
        table = read_table(memory / "memory.stat")
        cache = table.get("total_inactive_file", 0) + table.get("total_active_file", 0)
        return max(read_int(memory / "memory.usage_in_bytes") - cache, 0)

    def _inherit_cpuset(self, path: Path) -> None:
        """A new cpuset is empty and admits nobody: copy from the one above, which may be new, too."""
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not (path / file).read_text().strip():
                above = (path.parent / file).read_text()
                if not above.strip():
                    self._inherit_cpuset(path.parent)
                    above = (path.parent / file).read_text()
                write(path / file, above)

    def enter_files(self, name: str) -> list[Path]:
        """`cgroup.procs` of every hierarchy."""
        return [self._path(each, name) / "cgroup.procs" for each in self._controllers]

    def enter(self, name: str, pid: int) -> None:
        """Move the process in every hierarchy."""
        for file in self.enter_files(name):
            write(file, str(pid))

    def pids(self, name: str) -> set[int]:
        """Processes in the pids hierarchy."""
        try:
            words = (self._path("pids", name) / "cgroup.procs").read_text().split()
        except OSError:
            return set()
        return {int(word) for word in words}

    def remove(self, name: str) -> None:
        """Remove the group in every hierarchy."""
        for controller in self._controllers:
            remove_dir(self._path(controller, name))

    def was_oom_killed(self, name: str) -> bool:
        """Field `oom_kill` of memory.oom_control."""
        table = read_table(self._path("memory", name) / "memory.oom_control")
        return table.get("oom_kill", 0) > 0

    def sample(self, name: str) -> ContainerStats:
        """Read the hierarchies' counters."""
        memory = self._path("memory", name)
        acct = self._path("cpuacct", name)
        throttled = read_table(self._path("cpu", name) / "cpu.stat")
        pids = self._path("pids", name)
        user_hz_ns = 10_000_000
        times = read_table(acct / "cpuacct.stat")
        table = read_table(memory / "memory.stat")
        devices = self._devices(name)
        return ContainerStats(
            read_at_ns=0,
            cpu_total_ns=read_int(acct / "cpuacct.usage"),
            cpu_user_ns=times.get("user", 0) * user_hz_ns,
            cpu_system_ns=times.get("system", 0) * user_hz_ns,
            throttled_periods=throttled.get("nr_throttled", 0),
            throttled_ns=throttled.get("throttled_time", 0),
            memory_bytes=read_int(memory / "memory.usage_in_bytes"),
            memory_cache_bytes=table.get("total_inactive_file", 0),
            memory_limit_bytes=read_int(memory / "memory.limit_in_bytes"),
            pids=read_int(pids / "pids.current"),
            pids_limit=read_int(pids / "pids.max"),
            read_bytes=sum(each.read_bytes for each in devices),
            written_bytes=sum(each.written_bytes for each in devices),
            devices=devices,
            per_cpu_ns=tuple(read_numbers(acct / "cpuacct.usage_percpu")),
            periods=throttled.get("nr_periods", 0),
            memory_most_bytes=read_int(memory / "memory.max_usage_in_bytes"),
            memory_failures=read_int(memory / "memory.failcnt"),
            memory_table=table,
        )

    def _devices(self, name: str) -> tuple[DeviceIo, ...]:
        """Bytes and operations by device, of the throttling layer, which counts everything."""
        found: dict[str, dict[str, int]] = {}
        for file, fields in (
            ("io_service_bytes", {"Read": "read_bytes", "Write": "written_bytes"}),
            ("io_serviced", {"Read": "reads", "Write": "writes"}),
        ):
            with contextlib.suppress(OSError):
                text = (self._path("blkio", name) / f"blkio.throttle.{file}").read_text()
                for line in text.splitlines():
                    words = line.split()
                    if len(words) == 3 and words[1] in fields:
                        found.setdefault(words[0], {})[fields[words[1]]] = int(words[2])
        return devices_of(found)

    def names(self) -> set[str]:
        """Groups in any hierarchy."""
        found: set[str] = set()
        for controller in self._controllers:
            found |= child_names(self.root / controller / self.parent)
        found |= child_names(self.root / "devices" / f"{self.parent}{_OPEN}")
        return found
