"""Control groups of this host's containers: v1 (also hybrid) and v2 behind one port.

crun is told to leave cgroups alone (`--cgroup-manager=disabled`): the agent makes the group, puts
the container's init into it before it runs, and removes it after the end.
"""

import contextlib
import errno
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labfleet_proto.containers import Limits
from labfleet_proto.errors import InternalError
from labfleet_proto.runtime import ContainerStats

_PERIOD_US = 100_000
_DRAIN_S = 2.0
_DRAIN_STEP_S = 0.01

_V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer", "blkio")

_V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")

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


class Cgroups(Protocol):
    """The groups of one host. All calls block for well under a millisecond, `remove` up to 2 s."""

    @property
    def feature(self) -> str:
        """`cgroup-v1` or `cgroup-v2`, as published in the host's record."""

    def make(self, name: str, limits: Limits) -> None:
        """Make the group with its limits; existing limits are set anew."""

    def enter_files(self, name: str) -> list[Path]:
        """Files into which a process writes its pid (or 0) to enter."""

    def enter(self, name: str, pid: int) -> None:
        """Put a process into the group."""

    def pids(self, name: str) -> set[int]:
        """Processes in the group; empty if it does not exist."""

    def remove(self, name: str) -> None:
        """Remove the group once its processes are gone; absent is success."""

    def was_oom_killed(self, name: str) -> bool:
        """Whether the kernel killed a process of the group for lack of memory."""

    def sample(self, name: str) -> ContainerStats:
        """Use of resources now; interfaces are left empty."""

    def names(self) -> set[str]:
        """All groups of containers on this host."""


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as exc:
        raise InternalError(f"cannot write {value!r} to {path}: {exc.strerror}") from exc


def _write_if_there(path: Path, value: str) -> None:
    if path.exists():
        with contextlib.suppress(OSError):
            path.write_text(value)


def _read_int(path: Path, default: int = 0) -> int:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return default


def _read_table(path: Path) -> dict[str, int]:
    """Parse lines of `key value`."""
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if value.strip().isdigit():
                found[key] = int(value)
    return found


def _remove_dir(path: Path) -> None:
    """Remove a group, waiting while the kernel still counts a dying process in it."""
    end_s = time.monotonic() + _DRAIN_S
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno != errno.EBUSY or time.monotonic() > end_s:
                raise InternalError(f"cannot remove cgroup {path}: {exc.strerror}") from exc
            time.sleep(_DRAIN_STEP_S)  # in a worker thread
        else:
            return


def _child_names(parent: Path) -> set[str]:
    try:
        return {child.name for child in parent.iterdir() if child.is_dir()}
    except FileNotFoundError:
        return set()


def _confine_devices(group: Path) -> None:
    """Allow the listed devices only; a group that is confined already is left as it is."""
    listed = group / "devices.list"
    if listed.exists() and not listed.read_text().startswith("a"):
        return
    _write(group / "devices.deny", "a")
    for rule in _DEVICES:
        _write(group / "devices.allow", rule)


@dataclass(frozen=True)
class CgroupV1:
    """One hierarchy per controller; works beside a unified tree without controllers (hybrid)."""

    root: Path
    parent: str
    feature: str = "cgroup-v1"

    def _path(self, controller: str, name: str) -> Path:
        return self.root / controller / self.parent / name

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
                if not _child_names(path.parent):
                    _confine_devices(path.parent)
            path.mkdir(parents=True, exist_ok=True)
            if controller == "cpuset":
                self._inherit_cpuset(path)
            elif controller == "devices":
                _confine_devices(path)
        memory = self._path("memory", name)
        _write(memory / "memory.limit_in_bytes", str(limits.memory_bytes))
        _write_if_there(memory / "memory.memsw.limit_in_bytes", str(limits.memory_bytes))
        _write_if_there(memory / "memory.swappiness", "0")
        cpu = self._path("cpu", name)
        _write(cpu / "cpu.cfs_period_us", str(_PERIOD_US))
        _write(cpu / "cpu.cfs_quota_us", str(max(limits.cpu_millis * _PERIOD_US // 1000, 1000)))
        if limits.cpu_shares:
            _write(cpu / "cpu.shares", str(limits.cpu_shares))
        if limits.cpuset_cpus:
            _write(self._path("cpuset", name) / "cpuset.cpus", limits.cpuset_cpus)
        _write(self._path("pids", name) / "pids.max", str(limits.pids))
        self._write_wishes(name, limits)

    def _write_wishes(self, name: str, limits: Limits) -> None:
        """What need not be there in every kernel."""
        memory = self._path("memory", name)
        if limits.memory_reservation_bytes:
            _write_if_there(
                memory / "memory.soft_limit_in_bytes", str(limits.memory_reservation_bytes)
            )
        if limits.cpuset_mems:
            _write(self._path("cpuset", name) / "cpuset.mems", limits.cpuset_mems)
        if limits.blkio_weight:
            for file in ("blkio.weight", "blkio.bfq.weight"):
                _write_if_there(self._path("blkio", name) / file, str(limits.blkio_weight))

    def _inherit_cpuset(self, path: Path) -> None:
        """A new cpuset is empty and admits nobody: copy from the top down."""
        top = self.root / "cpuset"
        for part in [*reversed(path.relative_to(top).parents), path.relative_to(top)][1:]:
            for file in ("cpuset.cpus", "cpuset.mems"):
                here = top / part / file
                if not here.read_text().strip():
                    here.write_text((top / part).parent.joinpath(file).read_text())

    def enter_files(self, name: str) -> list[Path]:
        """`cgroup.procs` of every hierarchy."""
        return [self._path(each, name) / "cgroup.procs" for each in self._controllers]

    def enter(self, name: str, pid: int) -> None:
        """Move the process in every hierarchy."""
        for file in self.enter_files(name):
            _write(file, str(pid))

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
            _remove_dir(self._path(controller, name))

    def was_oom_killed(self, name: str) -> bool:
        """Field `oom_kill` of memory.oom_control."""
        table = _read_table(self._path("memory", name) / "memory.oom_control")
        return table.get("oom_kill", 0) > 0

    def sample(self, name: str) -> ContainerStats:
        """Read the hierarchies' counters."""
        memory = self._path("memory", name)
        acct = self._path("cpuacct", name)
        throttled = _read_table(self._path("cpu", name) / "cpu.stat")
        pids = self._path("pids", name)
        user_hz_ns = 10_000_000
        times = _read_table(acct / "cpuacct.stat")
        table = _read_table(memory / "memory.stat")
        read, written = self._io(name)
        return ContainerStats(
            read_at_ns=0,
            cpu_total_ns=_read_int(acct / "cpuacct.usage"),
            cpu_user_ns=times.get("user", 0) * user_hz_ns,
            cpu_system_ns=times.get("system", 0) * user_hz_ns,
            throttled_periods=throttled.get("nr_throttled", 0),
            throttled_ns=throttled.get("throttled_time", 0),
            memory_bytes=_read_int(memory / "memory.usage_in_bytes"),
            memory_cache_bytes=table.get("total_inactive_file", 0),
            memory_limit_bytes=_read_int(memory / "memory.limit_in_bytes"),
            pids=_read_int(pids / "pids.current"),
            pids_limit=_read_int(pids / "pids.max"),
            read_bytes=read,
            written_bytes=written,
        )

    def _io(self, name: str) -> tuple[int, int]:
        read = written = 0
        with contextlib.suppress(OSError):
            text = (self._path("blkio", name) / "blkio.throttle.io_service_bytes").read_text()
            for line in text.splitlines():
                words = line.split()
                if len(words) == 3 and words[1] == "Read":
                    read += int(words[2])
                elif len(words) == 3 and words[1] == "Write":
                    written += int(words[2])
        return read, written

    def names(self) -> set[str]:
        """Groups in any hierarchy."""
        found: set[str] = set()
        for controller in self._controllers:
            found |= _child_names(self.root / controller / self.parent)
        return found


def _pass_down(group: Path) -> None:
    """Let the groups below use the controllers; one that the kernel lacks must not cost the others."""
    here = group / "cgroup.controllers"
    known = here.read_text().split() if here.exists() else _V2_CONTROLLERS
    words = " ".join(f"+{name}" for name in _V2_CONTROLLERS if name in known)
    _write_if_there(group / "cgroup.subtree_control", words)


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
        _write(path / "memory.max", str(limits.memory_bytes))
        _write_if_there(path / "memory.swap.max", "0")
        _write_if_there(path / "memory.oom.group", "0")
        if limits.memory_reservation_bytes:
            _write_if_there(path / "memory.low", str(limits.memory_reservation_bytes))
        quota = max(limits.cpu_millis * _PERIOD_US // 1000, 1000)
        _write(path / "cpu.max", f"{quota} {_PERIOD_US}")
        if limits.cpu_shares:
            weight = 1 + (max(min(limits.cpu_shares, 262_144), 2) - 2) * 9999 // 262_142
            _write(path / "cpu.weight", str(weight))
        if limits.cpuset_cpus:
            _write(path / "cpuset.cpus", limits.cpuset_cpus)
        if limits.cpuset_mems:
            _write(path / "cpuset.mems", limits.cpuset_mems)
        if limits.blkio_weight:
            weight = 1 + (limits.blkio_weight - 10) * 9999 // 990
            _write_if_there(path / "io.weight", f"default {weight}")
        _write(path / "pids.max", str(limits.pids))

    def enter_files(self, name: str) -> list[Path]:
        """`cgroup.procs` of the group."""
        return [self._path(name) / "cgroup.procs"]

    def enter(self, name: str, pid: int) -> None:
        """Move the process."""
        _write(self._path(name) / "cgroup.procs", str(pid))

    def pids(self, name: str) -> set[int]:
        """Processes of the group."""
        try:
            return {int(word) for word in (self._path(name) / "cgroup.procs").read_text().split()}
        except OSError:
            return set()

    def remove(self, name: str) -> None:
        """Remove the group."""
        _remove_dir(self._path(name))

    def was_oom_killed(self, name: str) -> bool:
        """Field `oom_kill` of memory.events."""
        return _read_table(self._path(name) / "memory.events").get("oom_kill", 0) > 0

    def sample(self, name: str) -> ContainerStats:
        """Read the group's counters."""
        path = self._path(name)
        cpu = _read_table(path / "cpu.stat")
        read, written = self._io(path)
        return ContainerStats(
            read_at_ns=0,
            cpu_total_ns=cpu.get("usage_usec", 0) * 1000,
            cpu_user_ns=cpu.get("user_usec", 0) * 1000,
            cpu_system_ns=cpu.get("system_usec", 0) * 1000,
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_ns=cpu.get("throttled_usec", 0) * 1000,
            memory_bytes=_read_int(path / "memory.current"),
            memory_cache_bytes=_read_table(path / "memory.stat").get("inactive_file", 0),
            memory_limit_bytes=_read_int(path / "memory.max"),
            pids=_read_int(path / "pids.current"),
            pids_limit=_read_int(path / "pids.max"),
            read_bytes=read,
            written_bytes=written,
        )

    def _io(self, path: Path) -> tuple[int, int]:
        read = written = 0
        with contextlib.suppress(OSError):
            for line in (path / "io.stat").read_text().splitlines():
                for word in line.split()[1:]:
                    key, _, value = word.partition("=")
                    if key == "rbytes":
                        read += int(value)
                    elif key == "wbytes":
                        written += int(value)
        return read, written

    def names(self) -> set[str]:
        """Groups below the parent."""
        return _child_names(self.root / self.parent)


def detect(parent: str, root: Path = Path("/sys/fs/cgroup")) -> Cgroups:
    """Return the kind that this host mounts."""
    if (root / "cgroup.controllers").exists():
        return CgroupV2(root, parent)
    return CgroupV1(root, parent)
