"""Restart policies as moby has them: who is run again, and after how long."""

import pytest

from labfleet_proto.restarts import Restart, RestartPolicy, ends_restarts
from labfleet_runtime_agent.core.restarts import Ending, wait_ms


def ending(**fields: object) -> Ending:
    given = {"exit_code": 1, "ran_s": 0.1, "restart_count": 0, "last_wait_ms": 0}
    return Ending(**{**given, **fields})  # type: ignore[arg-type]


def policy(name: Restart, most: int = 0) -> RestartPolicy:
    return RestartPolicy(name=name, most_retries=most)


@pytest.mark.parametrize(
    ("kept", "how", "is_run_again"),
    [
        (policy(Restart.NO), ending(), False),
        (policy(Restart.ALWAYS), ending(exit_code=0), True),
        (policy(Restart.UNLESS_STOPPED), ending(exit_code=0), True),
        (policy(Restart.ON_FAILURE), ending(exit_code=0), False),
        (policy(Restart.ON_FAILURE), ending(restart_count=99), True),
        (policy(Restart.ON_FAILURE, 2), ending(restart_count=1), True),
        (policy(Restart.ON_FAILURE, 2), ending(restart_count=2), False),
        (policy(Restart.ALWAYS), ending(is_killed=True), False),
        (policy(Restart.ALWAYS), ending(is_of_older_boot=True), True),
        (policy(Restart.ALWAYS), ending(is_of_older_boot=True, is_killed=True), True),
        (policy(Restart.UNLESS_STOPPED), ending(is_of_older_boot=True), True),
        (policy(Restart.UNLESS_STOPPED), ending(is_of_older_boot=True, is_killed=True), False),
        (policy(Restart.ON_FAILURE), ending(is_of_older_boot=True), False),
    ],
)
def test_who_is_run_again(kept: RestartPolicy, how: Ending, *, is_run_again: bool) -> None:
    assert (wait_ms(kept, how) is not None) is is_run_again


def test_waits_double_up_to_a_minute_and_begin_anew_after_a_steady_run() -> None:
    always, waits, last = policy(Restart.ALWAYS), [], 0
    for _ in range(12):
        last = wait_ms(always, ending(last_wait_ms=last)) or 0
        waits.append(last)
    assert waits == [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]
    assert wait_ms(always, ending(last_wait_ms=60_000, ran_s=10)) == 100


@pytest.mark.parametrize(
    ("number", "stop_signal", "is_end"),
    [(9, 15, True), (15, 15, True), (1, 15, True), (1, 2, False), (2, 2, True), (9, 2, True)],
)
def test_which_signals_end_the_restarts(number: int, stop_signal: int, *, is_end: bool) -> None:
    assert ends_restarts(number, stop_signal) is is_end
