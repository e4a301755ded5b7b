"""Whether a goal is reached, and what prevented it."""

import pytest
from tests.unit.proto.records import container_record, observation

from labfleet_api.core import goals
from labfleet_proto.containers import Goal, State
from labfleet_proto.errors import CommandNotRunnableError

RUN = container_record(goal=Goal.RUNNING, attempt=2)


@pytest.mark.parametrize("state", [State.EXITED, State.REMOVED])
def test_a_start_that_failed_tells_why_also_when_its_container_is_gone(state: State) -> None:
    seen = observation(state, attempt=2, error="no such file", error_code="command_not_runnable")
    assert goals.is_reached(RUN, seen)
    assert isinstance(goals.failure(RUN, seen), CommandNotRunnableError)


def test_an_end_without_an_error_is_no_failure() -> None:
    assert goals.failure(RUN, observation(State.EXITED, attempt=2, exit_code=1)) is None


def test_the_failure_of_an_earlier_attempt_is_not_this_ones() -> None:
    seen = observation(State.EXITED, attempt=1, error="no", error_code="no_room")
    assert goals.failure(RUN, seen) is None
    assert not goals.is_reached(RUN, seen)


def test_a_start_is_pending_until_its_host_speaks_of_it() -> None:
    assert goals.is_pending_start(RUN, None)
    assert goals.is_pending_start(RUN, observation(State.EXITED, attempt=1))
    assert not goals.is_pending_start(RUN, observation(State.CREATED, attempt=2))
    stopped = container_record(goal=Goal.STOPPED, attempt=2)
    assert not goals.is_pending_start(stopped, None)
