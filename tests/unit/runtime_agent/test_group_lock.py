"""Which group a process is in, as the kernel tells it."""

from pathlib import Path

import pytest

from labfleet_runtime_agent.adapters.group_lock import own_group

HYBRID = "12:pids:/labs/agent\n3:cpu,cpuacct:/x\n0::/\n"


@pytest.mark.parametrize(
    ("table", "is_v2", "found"),
    [
        (HYBRID, False, "pids/labs/agent/cgroup.procs"),
        ("4:memory,pids:/\n", False, "pids/cgroup.procs"),
        ("0::/system.slice/agent.service\n", True, "system.slice/agent.service/cgroup.procs"),
    ],
)
def test_own_group(tmp_path: Path, table: str, is_v2: bool, found: str) -> None:  # noqa: FBT001
    if is_v2:
        (tmp_path / "cgroup.controllers").touch()
    listed = tmp_path / "cgroup"
    listed.write_text(table)
    assert own_group(tmp_path, listed) == tmp_path / found
