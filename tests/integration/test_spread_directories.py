"""Containers' directories lie apart on an ext4; other file systems have no such rule."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.farm.loop_disk import new_disk

from labfleet_runtime_agent.adapters.kernel import spread_directories

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="disks need root"),
]
_SIZE = 1 << 30


def _flags(path: Path) -> str:
    done = subprocess.run(["lsattr", "-d", path], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def test_directories_below_go_to_groups_of_their_own(tmp_path: Path) -> None:
    with new_disk(tmp_path / "disk", _SIZE) as disk:
        plain, spread = disk / "plain", disk / "spread"
        for home in (plain, spread):
            home.mkdir()
        spread_directories(spread)
        spread_directories(spread)
        assert "T" in _flags(spread)
        groups = {}
        for home in (plain, spread):
            for number in range(8):
                (home / str(number)).mkdir()
            groups[home] = {(home / str(number)).stat().st_ino // 8192 for number in range(8)}
        assert len(groups[spread]) > len(groups[plain])


def test_a_file_system_without_the_rule_is_left_alone() -> None:
    place = Path(f"/dev/shm/lftest-{os.getpid()}-spread")
    place.mkdir()
    try:
        spread_directories(place)
    finally:
        place.rmdir()
