"""When an entry of the writable layer differs from the image's."""

import stat
from dataclasses import dataclass, replace

import pytest

from labfleet_runtime_agent.core.changes import capability_inside, inside, is_different

BASE = 1_000_000


@dataclass(frozen=True)
class Entry:
    st_mode: int = stat.S_IFREG | 0o644
    st_uid: int = 0
    st_gid: int = 0
    st_rdev: int = 0
    st_size: int = 3
    st_mtime_ns: int = 5


def copied(old: Entry) -> Entry:
    """As overlayfs copies it up: ids are the container's."""
    return replace(old, st_uid=old.st_uid + BASE, st_gid=old.st_gid + BASE)


def test_a_copy_is_no_change() -> None:
    assert not is_different(Entry(), copied(Entry()), BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"st_mode": stat.S_IFREG | 0o600},
        {"st_uid": BASE + 1},
        {"st_gid": BASE + 1},
        {"st_size": 4},
        {"st_mtime_ns": 6},
        {"st_mode": stat.S_IFDIR | 0o644},
    ],
)
def test_every_fact_of_a_file_counts(change: dict[str, int]) -> None:
    assert is_different(Entry(), replace(copied(Entry()), **change), BASE)


def test_size_and_time_of_a_directory_do_not_count() -> None:
    old = Entry(st_mode=stat.S_IFDIR | 0o755)
    new = replace(copied(old), st_size=9, st_mtime_ns=9)
    assert not is_different(old, new, BASE)
    assert is_different(old, replace(new, st_mode=stat.S_IFDIR | 0o700), BASE)


def test_ids_out_of_the_container_are_nobodys() -> None:
    assert inside(BASE, BASE) == 0
    assert inside(BASE + 65_535, BASE) == 65_535
    assert inside(0, BASE) == inside(BASE + 65_536, BASE) == 65_534


def test_a_capability_loses_the_hosts_id() -> None:
    revision_3 = bytes.fromhex("0100000300200000000000000000000000000000") + bytes.fromhex(
        "40420f00"
    )
    revision_2 = bytes.fromhex("0100000200200000000000000000000000000000")
    assert capability_inside(revision_3) == revision_2
    assert capability_inside(revision_2) == revision_2
