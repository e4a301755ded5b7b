"""Who counts against a host's capacity."""

import pytest
from tests.unit.proto.records import container_record, observation

from labfleet_proto.containers import Goal, Observation, State
from labfleet_proto.placement import takes_room

OLD, NOW = 1, 2


@pytest.mark.parametrize(
    ("goal", "seen", "takes"),
    [
        (Goal.CREATED, None, True),
        (Goal.RUNNING, None, True),
        (Goal.RUNNING, observation(State.EXITED, OLD), True),
        (Goal.RUNNING, observation(State.RUNNING, OLD), True),
        (Goal.RUNNING, observation(State.PREPARING, NOW), True),
        (Goal.RUNNING, observation(State.RUNNING, NOW), True),
        (Goal.RUNNING, observation(State.EXITED, NOW), False),
        (Goal.STOPPED, None, False),
        (Goal.STOPPED, observation(State.EXITED, OLD), False),
        (Goal.STOPPED, observation(State.RUNNING, OLD), True),
        (Goal.STOPPED, observation(State.STOPPING, NOW), True),
        (Goal.STOPPED, observation(State.EXITED, NOW), False),
        (Goal.REMOVED, None, False),
        (Goal.REMOVED, observation(State.RUNNING, NOW), True),
        (Goal.REMOVED, observation(State.EXITED, NOW), False),
        (Goal.REMOVED, observation(State.REMOVED, NOW), False),
    ],
    ids=lambda value: (
        f"{value.state.name} {value.attempt}" if isinstance(value, Observation) else str(value)
    ),
)
def test_who_takes_room(goal: Goal, seen: Observation | None, *, takes: bool) -> None:
    assert takes_room(container_record(goal=goal, attempt=NOW), seen) is takes
