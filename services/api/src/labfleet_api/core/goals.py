"""Whether a container has reached its goal, as the fleet's memory shows it."""

from labfleet_proto.containers import ContainerRecord, Goal, Observation, State
from labfleet_proto.errors import LabfleetError
from labfleet_proto.problem import Problem


def is_reached(record: ContainerRecord, seen: Observation | None) -> bool:
    """Whether `seen` answers the record's goal; a start that failed is an answer too."""
    if seen is None:
        return False
    match record.goal:
        case Goal.CREATED:
            return True
        case Goal.RUNNING:
            is_begun = seen.state >= State.RUNNING or seen.restart_count > 0
            return seen.attempt >= record.attempt and is_begun and is_pause_settled(record, seen)
        case Goal.STOPPED:
            return seen.attempt >= record.attempt and seen.state >= State.EXITED
        case Goal.REMOVED:
            return seen.state is State.REMOVED


def is_pause_settled(record: ContainerRecord, seen: Observation) -> bool:
    """Whether a running container is paused if it is to be, and goes on if not."""
    is_wanted = record.paused_run == seen.run
    return seen.state is not State.RUNNING or seen.is_paused is is_wanted


def is_pending_start(record: ContainerRecord, seen: Observation | None) -> bool:
    """Whether a start was asked for that the host has not said anything of yet."""
    return record.goal is Goal.RUNNING and (seen is None or seen.attempt < record.attempt)


def failure(record: ContainerRecord, seen: Observation) -> LabfleetError | None:
    """Why the start that the record asks for did not come about; None if it did."""
    is_start = record.goal is Goal.RUNNING and seen.attempt == record.attempt
    if is_start and seen.state >= State.EXITED and seen.error_code:
        return Problem(code=seen.error_code, message=seen.error).to_error()
    return None
