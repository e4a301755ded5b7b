"""Control groups on a tree of plain files: what is written where, and what is read from it."""

import os
import re
from pathlib import Path

import pytest
from tests.unit.proto.records import limits

from labfleet_proto.errors import InternalError
from labfleet_proto.runtime import ContainerStats, DeviceIo
from labfleet_runtime_agent.adapters import cgroup_files, cgroup_v1
from labfleet_runtime_agent.adapters.cgroups import Cgroups, CgroupV1, CgroupV2, detect

PARENT, NAME = "labfleet/h1", "c1"
V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer", "blkio")
LIMITS = limits(memory_bytes=64 << 20, cpu_millis=1500, pids=100)


def files_below(directory: Path, texts: dict[str, str]) -> None:
    """What the kernel would put into a group."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / name).write_text(text)


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """A unified tree with the group's directories, as the kernel fills them; returns the group."""
    files_below(tmp_path, {"cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": ""})
    for part in ("labfleet", PARENT):
        files_below(tmp_path / part, {"cgroup.subtree_control": ""})
    group = tmp_path / PARENT / NAME
    files_below(group, {"cgroup.subtree_control": "", "memory.swap.max": "max", "cgroup.procs": ""})
    return group


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """One tree per controller with the group's directories; returns their root."""
    root = tmp_path
    for controller in V1_CONTROLLERS:
        files_below(root / controller / PARENT / NAME, {"cgroup.procs": ""})
    top = root / "cpuset"
    files_below(top, {"cpuset.cpus": "0-3\n", "cpuset.mems": "0\n"})
    for part in ("labfleet", PARENT, f"{PARENT}/{NAME}"):
        files_below(top / part, {"cpuset.cpus": "\n", "cpuset.mems": "\n"})
    files_below(
        root / "memory" / PARENT / NAME,
        {"memory.memsw.limit_in_bytes": "max", "memory.swappiness": "60"},
    )
    return root


def unified(group: Path) -> CgroupV2:
    return CgroupV2(group.parents[2], PARENT)


def in_v1(root: Path, controller: str, file: str) -> str:
    return (root / controller / PARENT / NAME / file).read_text()


# -- which kind


def test_a_unified_tree_is_recognised(v2: Path) -> None:
    assert isinstance(detect(PARENT, v2.parents[2]), CgroupV2)


def test_trees_per_controller_are_recognised(v1: Path) -> None:
    assert isinstance(detect(PARENT, v1), CgroupV1)


def test_a_unified_tree_beside_the_others_does_not_count(v1: Path) -> None:
    files_below(v1 / "unified", {"cgroup.controllers": ""})
    assert isinstance(detect(PARENT, v1), CgroupV1)


# -- v2: limits


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("cpu.max", "150000 100000"),
        ("pids.max", "100"),
    ],
)
def test_v2_every_limit_is_written(v2: Path, file: str, text: str) -> None:
    unified(v2).make(NAME, LIMITS)
    assert (v2 / file).read_text() == text


@pytest.mark.parametrize("above", [".", "labfleet", PARENT])
def test_v2_controllers_are_passed_down_from_the_root(v2: Path, above: str) -> None:
    unified(v2).make(NAME, LIMITS)
    control = v2.parents[2] / above / "cgroup.subtree_control"
    assert set(control.read_text().split()) >= {"+cpu", "+memory", "+pids"}


def test_v2_the_group_itself_passes_nothing_down(v2: Path) -> None:
    unified(v2).make(NAME, LIMITS)
    assert (v2 / "cgroup.subtree_control").read_text() == ""


def test_v2_a_tiny_share_of_cpu_is_the_kernels_least(v2: Path) -> None:
    unified(v2).make(NAME, limits(cpu_millis=1))
    assert (v2 / "cpu.max").read_text() == "1000 100000"


@pytest.mark.parametrize(("shares", "weight"), [(2, "1"), (1024, "39"), (262_144, "10000")])
def test_v2_shares_become_a_weight(v2: Path, shares: int, weight: str) -> None:
    unified(v2).make(NAME, limits(cpu_shares=shares))
    assert (v2 / "cpu.weight").read_text() == weight


def test_v2_cpus_are_pinned_where_that_is_asked_for(v2: Path) -> None:
    unified(v2).make(NAME, limits(cpuset_cpus="0-1"))
    assert (v2 / "cpuset.cpus").read_text() == "0-1"


# -- v1: limits


@pytest.mark.parametrize(
    ("controller", "file", "text"),
    [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "67108864"),
        ("memory", "memory.swappiness", "0"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "150000"),
        ("pids", "pids.max", "100"),
        ("devices", "devices.deny", "a"),
    ],
)
def test_v1_every_limit_is_written(v1: Path, controller: str, file: str, text: str) -> None:
    CgroupV1(v1, PARENT).make(NAME, LIMITS)
    assert in_v1(v1, controller, file) == text


@pytest.mark.parametrize("part", ["labfleet", PARENT, f"{PARENT}/{NAME}"])
def test_v1_a_new_cpuset_inherits_from_above(v1: Path, part: str) -> None:
    CgroupV1(v1, PARENT).make(NAME, LIMITS)
    directory = v1 / "cpuset" / part
    found = [(directory / file).read_text().strip() for file in ("cpuset.cpus", "cpuset.mems")]
    assert found == ["0-3", "0"]


def test_v1_a_pinned_cpuset_keeps_its_own_cpus(v1: Path) -> None:
    CgroupV1(v1, PARENT).make(NAME, limits(cpuset_cpus="2"))
    assert in_v1(v1, "cpuset", "cpuset.cpus") == "2"


def test_v1_shares_are_written_as_they_are(v1: Path) -> None:
    CgroupV1(v1, PARENT).make(NAME, limits(cpu_shares=512))
    assert in_v1(v1, "cpu", "cpu.shares") == "512"


def test_v1_only_harmless_devices_may_be_opened(v1: Path) -> None:
    allow = v1 / "devices" / PARENT / NAME / "devices.allow"
    os.mkfifo(allow)  # keeps every write, as the kernel does
    reader = os.open(allow, os.O_RDONLY | os.O_NONBLOCK)
    try:
        CgroupV1(v1, PARENT).make(NAME, LIMITS)
        rules = re.findall(r"[bc] \S+ [rwm]+", os.read(reader, 4096).decode())
    finally:
        os.close(reader)
    null, zero, full, random, urandom = (f"c 1:{minor} rwm" for minor in (3, 5, 7, 8, 9))
    tty, console, ptmx, pts = (f"c {number} rwm" for number in ("5:0", "5:1", "5:2", "136:*"))
    make_any = ["c *:* m", "b *:* m"]
    assert rules == [null, zero, full, random, urandom, tty, console, ptmx, pts, *make_any]


def test_v1_a_missing_controller_is_passed_over(tmp_path: Path) -> None:
    for controller in ("memory", "cpu", "pids"):
        (tmp_path / controller).mkdir()
    groups = CgroupV1(tmp_path, PARENT)
    groups.make(NAME, LIMITS)
    assert {file.parts[-5] for file in groups.enter_files(NAME)} == {"memory", "cpu", "pids"}


# -- both kinds


@pytest.fixture(params=["v1", "v2"])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Cgroups:
    """Either kind, with no group made."""
    if request.param == "v1":
        for controller in V1_CONTROLLERS:
            (tmp_path / controller).mkdir()
        return CgroupV1(tmp_path, PARENT)
    files_below(tmp_path, {"cgroup.controllers": "memory"})
    return CgroupV2(tmp_path, PARENT)


def test_a_host_without_groups_names_none(groups: Cgroups) -> None:
    assert groups.names() == set()


def test_a_group_that_does_not_exist_has_no_processes(groups: Cgroups) -> None:
    assert groups.pids(NAME) == set()


def test_removing_a_group_that_does_not_exist_is_success(groups: Cgroups) -> None:
    groups.remove(NAME)


def test_a_group_that_does_not_exist_has_used_nothing(groups: Cgroups) -> None:
    version = 2 if isinstance(groups, CgroupV2) else 1
    assert groups.sample(NAME) == ContainerStats(read_at_ns=0, cgroup_version=version)
    assert groups.memory_in_use(NAME) == 0
    assert not groups.is_frozen(NAME)


def test_a_group_that_does_not_exist_was_not_killed(groups: Cgroups) -> None:
    assert not groups.was_oom_killed(NAME)


def directories_of(groups: Cgroups) -> list[Path]:
    found = [file.parent for file in groups.enter_files(NAME)]
    for directory in found:
        directory.mkdir(parents=True)
    return found


def test_a_group_is_named_after_its_container(groups: Cgroups) -> None:
    directories_of(groups)
    assert groups.names() == {NAME}


def test_a_process_enters_the_group_everywhere(groups: Cgroups) -> None:
    directories = directories_of(groups)
    groups.enter(NAME, 4711)
    assert {(each / "cgroup.procs").read_text() for each in directories} == {"4711"}


def test_processes_of_the_group_are_listed(groups: Cgroups) -> None:
    for directory in directories_of(groups):
        (directory / "cgroup.procs").write_text("4711\n4712\n")
    assert groups.pids(NAME) == {4711, 4712}


def test_a_removed_group_is_gone_everywhere(groups: Cgroups) -> None:
    directories = directories_of(groups)
    groups.remove(NAME)
    assert not any(each.exists() for each in directories)


# -- changes of a group in use


def test_v1_memory_and_memory_with_swap_change_in_the_order_that_the_kernel_takes(
    v1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second may never be the smaller one."""
    written: list[str] = []

    def note(path: Path, text: str) -> None:
        written.append(path.name)
        cgroup_files.write(path, text)

    groups = CgroupV1(v1, PARENT)
    groups.make(NAME, LIMITS)
    monkeypatch.setattr(cgroup_v1, "write", note)
    groups.set_limits(NAME, limits(memory_bytes=128 << 20))
    assert written[:2] == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    written.clear()
    groups.set_limits(NAME, limits(memory_bytes=32 << 20))
    assert written[:2] == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]


def test_v1_a_group_is_frozen_and_thawed(v1: Path) -> None:
    groups = CgroupV1(v1, PARENT)
    groups.freeze(NAME)
    assert in_v1(v1, "freezer", "freezer.state") == "FROZEN"
    assert groups.is_frozen(NAME)
    groups.thaw(NAME)
    assert not groups.is_frozen(NAME)


def test_v2_a_group_is_frozen_once_the_kernel_says_so(v2: Path) -> None:
    files_below(v2, {"cgroup.events": "populated 1\nfrozen 1\n", "cgroup.freeze": "0"})
    groups = unified(v2)
    groups.freeze(NAME)
    assert (v2 / "cgroup.freeze").read_text() == "1"
    groups.thaw(NAME)
    assert (v2 / "cgroup.freeze").read_text() == "0"


def test_v2_a_group_that_does_not_freeze_goes_on(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_files, "_DRAIN_S", 0.02)
    files_below(v2, {"cgroup.events": "frozen 0\n", "cgroup.freeze": "0"})
    with pytest.raises(InternalError, match="pause"):
        unified(v2).freeze(NAME)
    assert (v2 / "cgroup.freeze").read_text() == "0"


# -- samples


V2_FILES = {
    "cpu.stat": "nr_periods 9\nusage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_throttled 4\nthrottled_usec 5\n",
    "memory.current": "4096\n",
    "memory.stat": "anon 100\ninactive_file 200\nactive_file 300\n",
    "memory.max": "8192\n",
    "pids.current": "3\n",
    "pids.max": "100\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n",
}
V1_FILES = {
    ("cpuacct", "cpuacct.usage"): "3000000\n",
    ("cpuacct", "cpuacct.usage_percpu"): "1000000 2000000\n",
    ("cpuacct", "cpuacct.stat"): "user 2\nsystem 1\n",
    ("cpu", "cpu.stat"): "nr_periods 9\nnr_throttled 4\nthrottled_time 5000\n",
    ("memory", "memory.usage_in_bytes"): "4096\n",
    ("memory", "memory.stat"): "inactive_file 1\ntotal_inactive_file 200\n",
    ("memory", "memory.limit_in_bytes"): "8192\n",
    ("memory", "memory.max_usage_in_bytes"): "5000\n",
    ("memory", "memory.failcnt"): "7\n",
    ("pids", "pids.current"): "3\n",
    ("pids", "pids.max"): "100\n",
    ("blkio", "blkio.throttle.io_service_bytes"): (
        "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\n8:16 Write 2\nTotal 33\n"
    ),
    ("blkio", "blkio.throttle.io_serviced"): "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
}
SAMPLE = ContainerStats(
    read_at_ns=0,
    cpu_total_ns=3_000_000,
    cpu_user_ns=2_000_000,
    cpu_system_ns=1_000_000,
    throttled_periods=4,
    throttled_ns=5000,
    memory_bytes=4096,
    memory_cache_bytes=200,
    memory_limit_bytes=8192,
    pids=3,
    pids_limit=100,
    read_bytes=11,
    written_bytes=22,
    periods=9,
    devices=(
        DeviceIo(major=8, minor=0, read_bytes=10, written_bytes=20, reads=1, writes=2),
        DeviceIo(major=8, minor=16, read_bytes=1, written_bytes=2),
    ),
)


def test_v2_a_sample_has_every_counter(v2: Path) -> None:
    files_below(v2, V2_FILES)
    own = {
        "cgroup_version": 2,
        "memory_table": {"anon": 100, "inactive_file": 200, "active_file": 300},
    }
    assert unified(v2).sample(NAME) == SAMPLE.model_copy(update=own)
    assert unified(v2).memory_in_use(NAME) == 4096 - 500


def test_v1_a_sample_has_every_counter(v1: Path) -> None:
    for (controller, file), text in V1_FILES.items():
        files_below(v1 / controller / PARENT / NAME, {file: text})
    own = {
        "cpu_user_ns": 20_000_000,
        "cpu_system_ns": 10_000_000,
        "per_cpu_ns": (1_000_000, 2_000_000),
        "memory_most_bytes": 5000,
        "memory_failures": 7,
        "memory_table": {"inactive_file": 1, "total_inactive_file": 200},
    }
    assert CgroupV1(v1, PARENT).sample(NAME) == SAMPLE.model_copy(update=own)
    assert CgroupV1(v1, PARENT).memory_in_use(NAME) == 4096 - 200


def test_v2_no_limit_is_zero(v2: Path) -> None:
    files_below(v2, {"memory.max": "max\n", "pids.max": "max\n"})
    sample = unified(v2).sample(NAME)
    assert (sample.memory_limit_bytes, sample.pids_limit) == (0, 0)


def test_torn_counters_count_as_nothing(v2: Path) -> None:
    files_below(v2, {"cpu.stat": "usage_usec\nuser_usec x\n", "memory.current": ""})
    assert unified(v2).sample(NAME) == ContainerStats(read_at_ns=0, cgroup_version=2)


# -- out of memory


@pytest.mark.parametrize(("count", "was_killed"), [(0, False), (1, True), (3, True)])
def test_v2_a_kill_for_lack_of_memory_is_seen(v2: Path, count: int, *, was_killed: bool) -> None:
    files_below(v2, {"memory.events": f"oom 5\noom_kill {count}\n"})
    assert unified(v2).was_oom_killed(NAME) is was_killed


@pytest.mark.parametrize(("count", "was_killed"), [(0, False), (1, True)])
def test_v1_a_kill_for_lack_of_memory_is_seen(v1: Path, count: int, *, was_killed: bool) -> None:
    text = f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n"
    files_below(v1 / "memory" / PARENT / NAME, {"memory.oom_control": text})
    assert CgroupV1(v1, PARENT).was_oom_killed(NAME) is was_killed


# -- refusals


def test_a_limit_that_the_kernel_refuses_names_file_and_value(v2: Path) -> None:
    (v2 / "pids.max").mkdir()
    with pytest.raises(InternalError, match=f"cannot write '100' to {v2 / 'pids.max'}: "):
        unified(v2).make(NAME, LIMITS)


def test_limits_of_a_known_group_are_set_anew(v2: Path) -> None:
    groups = unified(v2)
    groups.make(NAME, LIMITS)
    groups.make(NAME, limits(memory_bytes=1 << 20))
    assert (v2 / "memory.max").read_text() == str(1 << 20)
