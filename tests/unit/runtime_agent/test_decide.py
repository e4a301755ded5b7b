"""What an agent does next for one container: every case, and that the cases lead somewhere."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import (
    HOST,
    container_record,
    container_spec,
    observation,
)

from labfleet_proto.containers import Assignment, ContainerRecord, Goal, Observation, State
from labfleet_runtime_agent.core.decide import (
    Action,
    Nothing,
    Remove,
    Settle,
    Start,
    Stop,
    decide,
    is_news,
)

CUT_SHORT = (State.ASSIGNED, State.PREPARING, State.CREATED)
ALIVE = (State.RUNNING, State.STOPPING)
TERM = Stop("SIGTERM", 10)
UNRUN = Settle("stopped before it ran", 137)
MOST_STEPS = 4


def record(goal: Goal, attempt: int = 1, **fields: Any) -> ContainerRecord:
    return container_record(goal=goal, attempt=attempt, **fields)


def saw(attempt: int, *states: State) -> list[Observation | None]:
    return [observation(state, attempt) for state in states]


# goal, attempt wanted, what is seen, the action
CASES: list[tuple[Goal, int, list[Observation | None], Action]] = [
    (Goal.CREATED, 0, [None], Nothing()),
    (Goal.RUNNING, 1, [None], Start(1)),
    (Goal.RUNNING, 1, saw(1, *CUT_SHORT), Start(1)),
    (Goal.RUNNING, 1, saw(1, *ALIVE, State.EXITED, State.REMOVED), Nothing()),
    (Goal.RUNNING, 2, saw(1, *CUT_SHORT, State.EXITED), Start(2)),
    (Goal.RUNNING, 2, saw(1, *ALIVE), TERM),
    (Goal.RUNNING, 2, saw(1, State.REMOVED), Nothing()),
    (Goal.STOPPED, 0, [None], Nothing()),
    (Goal.STOPPED, 1, [None], UNRUN),
    (Goal.STOPPED, 1, saw(1, *CUT_SHORT), UNRUN),
    (Goal.STOPPED, 1, saw(1, *ALIVE), TERM),
    (Goal.STOPPED, 1, saw(1, State.EXITED, State.REMOVED), Nothing()),
    (Goal.STOPPED, 2, saw(1, *CUT_SHORT, State.EXITED), UNRUN),
    (Goal.STOPPED, 2, saw(1, *ALIVE), TERM),
    (Goal.REMOVED, 0, [None], Remove(with_volumes=False)),
    (Goal.REMOVED, 1, saw(1, *CUT_SHORT, State.EXITED), Remove(with_volumes=False)),
    (Goal.REMOVED, 1, saw(1, *ALIVE), Stop("SIGKILL", 0)),
    (Goal.REMOVED, 2, saw(1, *ALIVE), Stop("SIGKILL", 0)),
    (Goal.REMOVED, 1, saw(1, State.REMOVED), Nothing()),
]


@pytest.mark.parametrize(
    ("goal", "attempt", "seen", "action"),
    [
        pytest.param(
            goal,
            attempt,
            seen,
            action,
            id=f"{goal} {attempt}, saw {seen.state.name} {seen.attempt}"
            if seen
            else f"{goal} {attempt}",
        )
        for goal, attempt, sights, action in CASES
        for seen in sights
    ],
)
def test_the_action_of_each_case(
    goal: Goal, attempt: int, seen: Observation | None, action: Action
) -> None:
    assert decide(record(goal, attempt), seen) == action


def test_a_container_that_removes_itself_goes_with_its_volumes_when_it_ends() -> None:
    wanted = record(Goal.RUNNING, spec=container_spec(auto_remove=True))
    assert decide(wanted, observation(State.EXITED)) == Remove(with_volumes=True)


def test_a_removal_with_volumes_takes_them_along() -> None:
    wanted = record(Goal.REMOVED, remove_volumes=True)
    assert decide(wanted, observation(State.EXITED)) == Remove(with_volumes=True)


def test_a_stop_uses_the_signal_and_grace_of_the_container() -> None:
    spec = container_spec(stop_signal="SIGQUIT", stop_timeout_s=3)
    wanted = record(Goal.STOPPED, spec=spec)
    assert decide(wanted, observation(State.RUNNING)) == Stop("SIGQUIT", 3)


def test_a_stop_with_words_of_its_own_overrides_the_container() -> None:
    wanted = record(Goal.STOPPED, stop_signal="SIGINT", stop_timeout_s=0)
    assert decide(wanted, observation(State.RUNNING)) == Stop("SIGINT", 0)


# -- where it leads

records = st.builds(
    record,
    st.sampled_from(Goal),
    st.integers(min_value=0, max_value=3),
    spec=st.booleans().map(lambda is_set: container_spec(auto_remove=is_set)),
    remove_volumes=st.booleans(),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[ContainerRecord, Observation | None]:
    """A record with anything a host can have seen of it: never a later attempt than the record's."""
    wanted = draw(records)
    if wanted.attempt == 0:
        return wanted, draw(st.sampled_from([None, observation(State.REMOVED, 0)]))
    sights = st.builds(
        observation, st.sampled_from(State), st.integers(min_value=1, max_value=wanted.attempt)
    )
    return wanted, draw(st.none() | sights)


def outcome(action: Action, wanted: ContainerRecord, seen: Observation | None) -> Observation:
    """What is seen after the action went well."""
    match action:
        case Start(attempt):
            return observation(State.RUNNING, attempt)
        case Stop():
            assert seen is not None
            return observation(State.EXITED, seen.attempt)
        case Settle():
            return observation(State.EXITED, wanted.attempt)
        case Remove():
            return observation(State.REMOVED, seen.attempt if seen else wanted.attempt)
        case Nothing():
            raise AssertionError


def end_of(wanted: ContainerRecord, seen: Observation | None) -> Observation | None:
    """What is seen once nothing is left to do."""
    for _ in range(MOST_STEPS):
        action = decide(wanted, seen)
        if isinstance(action, Nothing):
            return seen
        seen = outcome(action, wanted, seen)
    raise AssertionError


@given(situations())
def test_every_situation_comes_to_rest(
    situation: tuple[ContainerRecord, Observation | None],
) -> None:
    end_of(*situation)


@given(situations())
def test_every_action_leads_forward(situation: tuple[ContainerRecord, Observation | None]) -> None:
    wanted, seen = situation
    action = decide(wanted, seen)
    if seen is not None and not isinstance(action, Nothing):
        assert outcome(action, wanted, seen).order() > seen.order()


@given(situations())
def test_an_action_that_went_well_is_not_asked_for_again(
    situation: tuple[ContainerRecord, Observation | None],
) -> None:
    wanted, seen = situation
    action = decide(wanted, seen)
    if not isinstance(action, Nothing):
        assert decide(wanted, outcome(action, wanted, seen)) != action


@given(situations())
def test_a_removal_ends_in_removed(situation: tuple[ContainerRecord, Observation | None]) -> None:
    wanted, seen = situation
    end = end_of(wanted.model_copy(update={"goal": Goal.REMOVED}), seen)
    assert end is not None
    assert end.state is State.REMOVED


@given(situations())
def test_a_stop_leaves_nothing_running(
    situation: tuple[ContainerRecord, Observation | None],
) -> None:
    wanted, seen = situation
    end = end_of(wanted.model_copy(update={"goal": Goal.STOPPED}), seen)
    assert end is None or end.state in (State.EXITED, State.REMOVED)


@given(situations())
def test_a_start_has_run_the_attempt_that_was_asked_for(
    situation: tuple[ContainerRecord, Observation | None],
) -> None:
    wanted, seen = situation
    end = end_of(wanted.model_copy(update={"goal": Goal.RUNNING}), seen)
    if end is not None and end.state is not State.REMOVED:
        assert end.attempt == wanted.attempt
        assert end.state >= State.RUNNING


# -- which record counts


def of(generation: int, epoch: int = 1) -> ContainerRecord:
    return container_record(
        generation=generation, assignment=Assignment(host=HOST, epoch=epoch, reason="test")
    )


def test_a_first_record_is_news() -> None:
    assert is_news(of(1), None)


@pytest.mark.parametrize(
    ("generation", "is_new"), [(1, False), (2, False), (3, True)], ids=["older", "same", "newer"]
)
def test_only_a_greater_generation_is_news(generation: int, *, is_new: bool) -> None:
    assert is_news(of(generation), of(2)) is is_new


def test_a_record_of_a_past_life_of_the_host_is_never_news() -> None:
    assert not is_news(of(9, epoch=1), of(2, epoch=2))
