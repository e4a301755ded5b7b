"""Time for real-time priorities, on a tree of files."""

from pathlib import Path

import pytest

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.adapters import real_time


def group(path: Path, runtime_us: int = 0, period_us: int = 1_000_000) -> Path:
    path.mkdir()
    (path / "cpu.rt_runtime_us").write_text(f"{runtime_us}\n")
    (path / "cpu.rt_period_us").write_text(f"{period_us}\n")
    return path


def runtime(path: Path) -> int:
    return int((path / "cpu.rt_runtime_us").read_text())


def test_the_parents_have_room_for_all_of_their_children(tmp_path: Path) -> None:
    root = group(tmp_path / "cpu", 950_000)
    fleet = group(root / "fleet", 100_000)
    group(fleet / "other-host", 100_000)
    host = group(fleet / "host", period_us=500_000)
    group(host / "first", 50_000, 100_000)
    one = group(host / "one")
    real_time.grant(root, one, 100_000, 10_000)
    assert runtime(one) == 10_000
    assert (one / "cpu.rt_period_us").read_text() == "100000"
    assert runtime(host) == 300_000  # six tenths of its own period
    assert runtime(fleet) == 700_000
    assert runtime(root) == 950_000


def test_what_a_parent_has_is_not_lessened(tmp_path: Path) -> None:
    root = group(tmp_path / "cpu", 950_000)
    host = group(root / "host", 400_000)
    one = group(host / "one")
    real_time.grant(root, one, 0, 10_000)
    assert (runtime(host), runtime(one)) == (400_000, 10_000)


def test_a_kernel_without_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(InvalidRequestError, match="does not support CPU real-time"):
        real_time.grant(tmp_path, tmp_path / "one", 0, 10_000)
