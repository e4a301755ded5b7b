"""What goes when a disk fills up."""

from hypothesis import given
from hypothesis import strategies as st

from labfleet_runtime_agent.core.eviction import (
    Cached,
    Disk,
    Marks,
    evictable,
    wanted_free_bytes,
)

MARKS = Marks(high_percent=85, low_percent=75)


def disk(used_percent: float) -> Disk:
    return Disk(total_bytes=1000, free_bytes=int(1000 - used_percent * 10))


def test_below_the_high_mark_nothing_goes() -> None:
    assert wanted_free_bytes(disk(85), MARKS) == 0
    assert wanted_free_bytes(disk(80), MARKS) == 0


def test_above_it_room_is_made_down_to_the_low_mark() -> None:
    assert wanted_free_bytes(disk(85.1), MARKS) == 250
    assert wanted_free_bytes(disk(100), MARKS) == 250


def test_a_disk_of_nothing_is_full() -> None:
    assert Disk(0, 0).used_share == 1


def test_the_least_recently_used_goes_first_and_what_is_in_use_never() -> None:
    cached = [Cached("new", 30), Cached("old", 10), Cached("used", 1), Cached("middle", 20)]
    assert evictable(cached, {"used"}) == ["old", "middle", "new"]


names = st.text("abcdef", min_size=1, max_size=2)


@given(st.dictionaries(names, st.floats(0, 100)), st.sets(names))
def test_everything_else_may_go(used: dict[str, float], in_use: set[str]) -> None:
    found = evictable([Cached(name, at_s) for name, at_s in used.items()], in_use)
    assert set(found) == used.keys() - in_use
    assert [used[name] for name in found] == sorted(used[name] for name in found)
