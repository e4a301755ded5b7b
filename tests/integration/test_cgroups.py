"""Control groups of the real kernel: limits that hold, kills that are seen, groups that go."""

import errno
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.farm import one_host
from tests.unit.proto.records import limits

from labfleet_cli import machine
from labfleet_proto.errors import InternalError
from labfleet_runtime_agent.adapters import cgroup_files as module
from labfleet_runtime_agent.adapters.cgroups import Cgroups, CgroupV1, detect
from labfleet_runtime_agent.adapters.execs import entering

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root"),
]
only_v1 = pytest.mark.skipif(machine.is_cgroup_v2(), reason="a file of cgroup v1")

ONE = f"{one_host.NAME}-c1"
TWO = f"{one_host.NAME}-c2"
MIB = 1 << 20

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    machine.mount_controllers()
    with one_host.cgroup_parent() as parent:
        yield detect(parent)


@pytest.fixture
def spawn(groups: Cgroups) -> Iterator[Spawn]:
    """Starts programs inside a group; all are ended."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: str, group: str = ONE, **options: Any) -> "subprocess.Popen[bytes]":
        child = subprocess.Popen(entering(groups.enter_files(group), [*argv]), **options)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def until(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "the condition does not come about"
        time.sleep(0.005)


def file(groups: Cgroups, v1: str, v2: str) -> str:
    """Text of a file of the group, by its name in either version."""
    for procs in groups.enter_files(ONE):
        if not isinstance(groups, CgroupV1) or v1.partition("/")[0] in procs.parts:
            name = v1.partition("/")[2] if isinstance(groups, CgroupV1) else v2
            return (procs.parent / name).read_text().strip()
    raise AssertionError(f"no hierarchy for {v1}")


# -- limits


def test_memory_and_processes_are_limited(groups: Cgroups) -> None:
    groups.make(ONE, limits(memory_bytes=32 * MIB, pids=77))
    sample = groups.sample(ONE)
    assert (sample.memory_limit_bytes, sample.pids_limit) == (32 * MIB, 77)


def test_the_share_of_cpu_is_limited(groups: Cgroups) -> None:
    groups.make(ONE, limits(cpu_millis=250))
    assert file(groups, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"


def test_cpus_are_pinned(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits(cpuset_cpus="1"))
    child = spawn("sleep", "60")
    until(lambda: child.pid in groups.pids(ONE))
    until(lambda: os.sched_getaffinity(child.pid) == {1})


def test_limits_are_set_anew(groups: Cgroups) -> None:
    groups.make(ONE, limits(memory_bytes=32 * MIB))
    groups.make(ONE, limits(memory_bytes=16 * MIB, pids=5))
    sample = groups.sample(ONE)
    assert (sample.memory_limit_bytes, sample.pids_limit) == (16 * MIB, 5)


def test_too_many_processes_are_refused(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits(pids=8))
    script = (
        "import os, signal\n"
        "made = 0\n"
        "try:\n"
        "  while made < 20:\n"
        "    if os.fork() == 0: signal.pause()\n"
        "    made += 1\n"
        "except OSError as refused: print(made, refused.errno, flush=True)\n"
    )
    child = spawn(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert child.stdout is not None
    made, number = child.stdout.readline().split()
    assert (int(made), int(number)) == (7, errno.EAGAIN)


def test_a_busy_process_is_throttled(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits(cpu_millis=50))
    spawn("sh", "-c", "while :; do :; done")
    until(lambda: groups.sample(ONE).throttled_periods > 2)
    assert groups.sample(ONE).cpu_total_ns > 0


@only_v1
def test_devices_of_the_machine_cannot_be_opened(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits())
    script = (
        "for path in ('/dev/null', '/dev/zero', '/dev/kmsg', '/dev/mem'):\n"
        "  try: open(path, 'rb', buffering=0).close(); print(path, 0)\n"
        "  except OSError as refused: print(path, refused.errno)\n"
    )
    child = spawn(sys.executable, "-c", script, stdout=subprocess.PIPE)
    said = child.communicate(timeout=10)[0].decode().splitlines()
    assert said[:2] == ["/dev/null 0", "/dev/zero 0"]
    assert "/dev/kmsg 1" in said  # EPERM


@only_v1
def test_a_second_container_is_confined_like_the_first(groups: Cgroups) -> None:
    groups.make(ONE, limits())
    groups.make(TWO, limits())
    lists = [
        (procs.parent / "devices.list").read_text()
        for name in (ONE, TWO)
        for procs in groups.enter_files(name)
        if "devices" in procs.parts
    ]
    assert lists[0] == lists[1]
    assert not lists[0].startswith("a")


@only_v1
def test_swap_is_none(groups: Cgroups) -> None:
    groups.make(ONE, limits(memory_bytes=32 * MIB))
    assert file(groups, "memory/memory.swappiness", "") == "0"


# -- who is in it


def test_a_process_enters_every_hierarchy(groups: Cgroups) -> None:
    groups.make(ONE, limits())
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            groups.enter(ONE, child.pid)
            lines = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
            inside = [line for line in lines if line.endswith(f"/h1/{ONE}")]
            assert len(inside) == len(groups.enter_files(ONE))
            assert groups.pids(ONE) == {child.pid}
        finally:
            child.kill()


def test_a_process_that_is_gone_cannot_enter(groups: Cgroups) -> None:
    groups.make(ONE, limits())
    with subprocess.Popen(["true"]) as child:
        child.wait()
    with pytest.raises(InternalError, match=rf"cannot write '{child.pid}' to .*cgroup.procs"):
        groups.enter(ONE, child.pid)


def test_children_are_in_the_group_too(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits())
    spawn("sh", "-c", "sleep 60 & sleep 60 & wait")
    until(lambda: len(groups.pids(ONE)) == 3)
    assert groups.sample(ONE).pids == 3


def test_groups_are_named(groups: Cgroups) -> None:
    assert groups.names() == set()
    groups.make(ONE, limits())
    groups.make(TWO, limits())
    assert groups.names() == {ONE, TWO}


# -- out of memory


def test_a_kill_for_lack_of_memory_is_seen(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits(memory_bytes=32 * MIB))
    groups.make(TWO, limits(memory_bytes=32 * MIB))
    child = spawn(sys.executable, "-c", f"x = b'x' * {128 * MIB}")
    assert child.wait(20) == -9
    assert groups.was_oom_killed(ONE)
    assert not groups.was_oom_killed(TWO)


def test_a_process_that_keeps_within_its_memory_lives(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits(memory_bytes=64 * MIB))
    child = spawn(sys.executable, "-c", f"x = b'x' * {8 * MIB}")
    assert child.wait(20) == 0
    assert not groups.was_oom_killed(ONE)


def test_a_kill_by_hand_is_no_lack_of_memory(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits())
    child = spawn("sleep", "60")
    until(lambda: child.pid in groups.pids(ONE))
    child.kill()
    child.wait()
    assert not groups.was_oom_killed(ONE)


# -- the end


def test_a_removed_group_leaves_nothing(groups: Cgroups) -> None:
    groups.make(ONE, limits())
    groups.remove(ONE)
    assert groups.names() == set()
    groups.remove(ONE)  # again is nothing


def test_a_group_goes_as_soon_as_its_processes_have(groups: Cgroups, spawn: Spawn) -> None:
    """Processes of a container die while its group is being removed."""
    groups.make(ONE, limits())
    children = [spawn("sleep", "60") for _ in range(20)]
    until(lambda: len(groups.pids(ONE)) == 20)
    with ThreadPoolExecutor(max_workers=1) as threads:
        removing = threads.submit(groups.remove, ONE)
        for child in children:
            child.kill()
        removing.result(10)
    assert groups.names() == set()


def test_a_zombie_does_not_hold_a_group(groups: Cgroups, spawn: Spawn) -> None:
    groups.make(ONE, limits())
    child = spawn("sleep", "60")
    until(lambda: child.pid in groups.pids(ONE))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, not reaped
    groups.remove(ONE)
    assert groups.names() == set()


def test_a_group_with_a_living_process_stays(
    groups: Cgroups, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DRAIN_S", 0.05)
    groups.make(ONE, limits())
    child = spawn("sleep", "60")
    until(lambda: child.pid in groups.pids(ONE))
    with pytest.raises(InternalError, match=rf"cannot remove cgroup .*{shlex.quote(ONE)}"):
        groups.remove(ONE)
    assert groups.pids(ONE) == {child.pid}
