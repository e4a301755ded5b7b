"""`docker wait`: whether what is waited for has come, and the exit code then."""

from labfleet_api.core.status import is_live, state_of
from labfleet_proto.containers import ContainerRecord, Observation, State

CONDITIONS = ("not-running", "next-exit", "removed")


def awaited_run(record: ContainerRecord, first: Observation | None, condition: str) -> int | None:
    """Number of the run whose end is waited for; None if there is nothing to wait for.

    A run that is about to begin by the restart policy counts as running, as in moby.
    """
    if condition == "not-running" and not is_live(state_of(record, first)):
        return None
    if first is None:
        return 1
    return first.run + 1 if first.state >= State.EXITED else first.run


def exit_code(last: Observation | None, run: int) -> int | None:
    """The code with which the run ended; None while it has not. A later run tells it, too."""
    if last is None or last.run < run:
        return None
    if last.state >= State.EXITED:
        return last.exit_code or 0
    return last.previous_exit_code or 0 if last.previous_run >= run else None
