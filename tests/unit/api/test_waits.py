"""`docker wait`: which run is waited for, and what tells its end."""

from typing import Any

import pytest
from tests.unit.proto.records import container_record, observation

from labfleet_api.core.waits import awaited_run, exit_code
from labfleet_proto.containers import Goal, Observation, State


def saw(attempt: int, state: State, **fields: Any) -> Observation:
    return observation(state, attempt).model_copy(update={"started_at_ns": 1, **fields})


RUNNING = saw(1, State.RUNNING)
ENDED = saw(1, State.EXITED, exit_code=3)
AWAITING = saw(1, State.EXITED, exit_code=3, restart_at_ns=1)


@pytest.mark.parametrize(
    ("first", "condition", "run"),
    [
        (None, "not-running", None),
        (ENDED, "not-running", None),
        (RUNNING, "not-running", 1),
        (AWAITING, "not-running", 2),
        (None, "next-exit", 1),
        (ENDED, "next-exit", 2),
        (RUNNING, "next-exit", 1),
    ],
)
def test_which_run_is_waited_for(
    first: Observation | None, condition: str, run: int | None
) -> None:
    record = container_record(goal=Goal.RUNNING, attempt=1)
    assert awaited_run(record, first, condition) == run


@pytest.mark.parametrize(
    ("last", "run", "code"),
    [
        (None, 1, None),
        (RUNNING, 1, None),
        (ENDED, 1, 3),
        (ENDED, 2, None),
        (saw(1, State.RUNNING, restarts=1, previous_exit_code=4, previous_run=1), 1, 4),
        (saw(3, State.RUNNING, previous_exit_code=4, previous_run=1), 2, None),
        (saw(3, State.EXITED, exit_code=5, previous_run=1), 2, 5),
    ],
)
def test_what_tells_the_end_of_a_run(last: Observation | None, run: int, code: int | None) -> None:
    assert exit_code(last, run) == code
