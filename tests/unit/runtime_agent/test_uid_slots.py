"""Ranges of user ids: one per container, never shared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import container_id

from labfleet_proto.errors import NoRoomError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER
from labfleet_runtime_agent.core.uid_slots import UidSlots

ONE, TWO, THREE = container_id(1), container_id(2), container_id(3)


def test_who_is_free_for_the_longest_time_comes_next() -> None:
    slots = UidSlots(base=0, count=3)
    assert [slots.take(ONE), slots.take(TWO)] == [0, 1]
    slots.release(TWO)
    slots.release(ONE)
    assert slots.upcoming(9) == [2, 1, 0]
    assert [slots.take(each) for each in (ONE, TWO, THREE)] == [2, 1, 0]
    assert slots.upcoming(1) == []


def test_only_some_slots_take_turns_as_long_as_they_suffice() -> None:
    slots = UidSlots(base=0, count=1000)
    used = set()
    for number in range(1, 300):
        used.add(slots.take(container_id(number)))
        slots.release(container_id(number))
    assert used == set(range(64))
    assert len(slots.upcoming(100)) == 100


def test_a_change_is_told() -> None:
    slots, told = UidSlots(base=0, count=3), []
    slots.listen(lambda: told.append(slots.upcoming(3)))
    slots.take(ONE)
    slots.take(ONE)
    slots.release(ONE)
    slots.release(ONE)
    assert told == [[1, 2], [1, 2, 0]]


def test_asking_again_gives_the_same_slot() -> None:
    slots = UidSlots(base=0, count=3)
    assert slots.take(ONE) == slots.take(ONE)


def test_a_restored_slot_is_not_given_to_another() -> None:
    slots = UidSlots(base=0, count=3)
    slots.restore(ONE, 0)
    assert (slots.take(TWO), slots.take(ONE)) == (1, 0)


def test_a_host_without_free_ranges_says_so() -> None:
    slots = UidSlots(base=0, count=1)
    slots.take(ONE)
    with pytest.raises(NoRoomError, match="all 1 user-id ranges of this host are taken"):
        slots.take(TWO)


def test_releasing_an_unknown_container_is_success() -> None:
    slots = UidSlots(base=0, count=1)
    slots.release(ONE)
    assert slots.holders() == set()


def test_the_holders_are_those_with_a_range() -> None:
    slots = UidSlots(base=0, count=3)
    slots.take(ONE)
    slots.restore(TWO, 2)
    assert slots.holders() == {ONE, TWO}


def test_ranges_lie_side_by_side_above_the_base() -> None:
    slots = UidSlots(base=1_000_000, count=3)
    assert [slots.first_id(slot) for slot in (0, 1)] == [1_000_000, 1_000_000 + IDS_PER_CONTAINER]


containers = st.integers(min_value=1, max_value=6).map(container_id)


@given(st.lists(st.tuples(st.booleans(), containers), max_size=30))
def test_no_two_containers_ever_share_a_range(asked: list[tuple[bool, ContainerId]]) -> None:
    slots, held = UidSlots(base=0, count=6), dict[ContainerId, int]()
    for is_taken, container in asked:
        if is_taken:
            held[container] = slots.take(container)
        else:
            slots.release(container)
            held.pop(container, None)
        assert len(set(held.values())) == len(held)
        assert slots.holders() == set(held)


def test_a_range_that_is_shared_is_free_when_the_last_has_left() -> None:
    slots = UidSlots(base=1_000_000, count=2)
    one, two = ContainerId("1" * 64), ContainerId("2" * 64)
    assert slots.share(two, one) is None
    slot = slots.take(one)
    assert slots.share(two, one) == slot
    slots.release(one)
    assert slots.upcoming(2) == [1]
    slots.release(two)
    assert sorted(slots.upcoming(2)) == [0, 1]
