"""Programs with a limit, and loops that are restarted."""

import asyncio

import pytest

from labfleet_chassis import logs, process
from labfleet_chassis.process import ProgramFailedError
from labfleet_chassis.supervise import alone, supervise
from labfleet_proto.errors import IllegalTransitionError, UnavailableError


async def test_a_program_gets_its_input_and_returns_its_output() -> None:
    done = await process.run(["cat"], timeout_s=5, stdin=b"hello")
    assert (done.exit_code, done.stdout) == (0, b"hello")


async def test_a_failing_program_says_what_it_printed() -> None:
    with pytest.raises(ProgramFailedError, match="exit code 3: broken"):
        await process.run(["sh", "-c", "echo broken >&2; exit 3"], timeout_s=5)


async def test_a_program_past_its_limit_is_killed() -> None:
    with pytest.raises(TimeoutError):
        await process.run(["sleep", "60"], timeout_s=0.05)


async def test_a_failing_loop_is_run_again() -> None:
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise UnavailableError("the bus is away")

    await supervise("test", loop, logs.get("test"))
    assert runs == 3


async def test_an_illegal_transition_ends_the_loop() -> None:
    async def loop() -> None:
        raise IllegalTransitionError("c: EXITED -> RUNNING")

    with pytest.raises(IllegalTransitionError):
        await supervise("test", loop, logs.get("test"))


async def test_what_fails_alone_ends_nothing_else() -> None:
    async def work() -> None:
        raise RuntimeError("the handler is closed")

    async with asyncio.TaskGroup() as tasks:
        failing = tasks.create_task(alone("test", work(), logs.get("test")))
        other = tasks.create_task(asyncio.sleep(0.01, "done"))
    assert (failing.result(), other.result()) == (None, "done")


async def test_cancellation_passes_through() -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(supervise("test", asyncio.Event().wait, logs.get("test")))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
