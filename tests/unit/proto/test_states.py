"""The table of states, and the order of observations."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import container_id, observation

from labfleet_proto.containers import TRANSITIONS, Observation, State, check_transition
from labfleet_proto.errors import IllegalTransitionError

STEPS = [(old, new) for old, allowed in TRANSITIONS.items() for new in allowed]
FORBIDDEN = [(old, new) for old in State for new in State if (old, new) not in STEPS]

histories = st.lists(
    st.builds(observation, st.sampled_from(State), st.integers(min_value=0, max_value=5)),
    min_size=1,
    unique_by=lambda seen: seen.order(),
)


def newest(seen: list[Observation]) -> Observation:
    """Fold as every mirror does: a greater observation replaces the known one."""
    return reduce(lambda known, each: each if known.order() < each.order() else known, seen)


def test_the_table_names_every_state() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_allowed_step_grows() -> None:
    assert all(new > old for old, new in STEPS)


@pytest.mark.parametrize("state", [state for state in State if state is not State.REMOVED])
def test_every_state_can_be_removed_at_once(state: State) -> None:
    assert State.REMOVED in TRANSITIONS[state]


def test_nothing_follows_removed() -> None:
    assert TRANSITIONS[State.REMOVED] == frozenset()


@pytest.mark.parametrize(("old", "new"), STEPS)
def test_a_step_of_the_table_passes(old: State, new: State) -> None:
    check_transition(container_id(1), old, new)


@pytest.mark.parametrize(("old", "new"), FORBIDDEN)
def test_a_step_outside_the_table_is_named_in_full(old: State, new: State) -> None:
    with pytest.raises(IllegalTransitionError) as raised:
        check_transition(container_id(7), old, new)
    assert str(raised.value) == f"container {container_id(7)}: {old.name} -> {new.name}"


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (observation(State.CREATED, 1), observation(State.RUNNING, 1)),
        (observation(State.EXITED, 1), observation(State.ASSIGNED, 2)),
        (observation(State.RUNNING, 9), observation(State.REMOVED, 1)),
    ],
    ids=["later state", "later attempt", "removed for ever"],
)
def test_the_later_observation_is_greater(less: Observation, more: Observation) -> None:
    assert less.order() < more.order()


@given(histories, st.data())
def test_reordered_and_repeated_observations_end_alike(
    history: list[Observation], data: st.DataObject
) -> None:
    repeated = history + data.draw(st.lists(st.sampled_from(history)))
    arrived = data.draw(st.permutations(repeated))
    assert newest(arrived) == newest(history)
