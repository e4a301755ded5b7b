"""What an agent does within an attempt: restarts by policy, and pause."""

import pytest
from tests.unit.proto.records import container_record, observation

from labfleet_proto.containers import Goal, State, awaits_restart
from labfleet_proto.placement import takes_room
from labfleet_runtime_agent.core.decide import Action, Await, Freeze, Nothing, Start, Thaw, decide

RECORD = container_record(goal=Goal.RUNNING, attempt=2)
ENDED = observation(State.EXITED, 2, restarts=3, restart_at_ns=77)


def test_the_next_run_is_awaited_until_its_time() -> None:
    assert decide(RECORD, ENDED) == Await(77)
    assert awaits_restart(RECORD, ENDED)
    assert takes_room(RECORD, ENDED)
    begun = observation(State.ASSIGNED, 2, restarts=4)
    assert begun.order() > ENDED.order()
    assert decide(RECORD, begun) == Start(2)


@pytest.mark.parametrize(
    ("goal", "attempt", "action"),
    [(Goal.STOPPED, 2, Nothing()), (Goal.RUNNING, 3, Start(3))],
)
def test_a_wish_of_the_owner_ends_the_wait(goal: Goal, attempt: int, action: Action) -> None:
    record = container_record(goal=goal, attempt=attempt)
    assert decide(record, ENDED) == action
    assert not awaits_restart(record, ENDED)


@pytest.mark.parametrize(
    ("wanted", "restarts", "is_paused", "action"),
    [
        (None, 0, False, Nothing()),
        (2, 0, False, Freeze()),
        (2, 0, True, Nothing()),
        (None, 0, True, Thaw()),
        (2, 1, False, Nothing()),  # the wish was for the run before
    ],
)
def test_a_pause_is_for_one_run(
    wanted: int | None, restarts: int, *, is_paused: bool, action: Action
) -> None:
    record = RECORD.model_copy(update={"paused_run": wanted})
    seen = observation(State.RUNNING, 2, restarts=restarts, is_paused=is_paused)
    assert decide(record, seen) == action


def test_the_number_of_the_run_only_grows() -> None:
    runs = [(1, 0), (1, 1), (1, 2), (2, 2), (2, 3), (5, 3)]
    numbers = [observation(State.RUNNING, a, restarts=r).run for a, r in runs]
    assert numbers == sorted(set(numbers))
