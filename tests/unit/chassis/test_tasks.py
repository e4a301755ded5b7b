"""What a failed group of tasks leaves behind: nothing."""

import asyncio

import pytest

from labfleet_chassis import logs
from labfleet_chassis.supervise import supervise
from labfleet_chassis.tasks import TaskGroup


async def _fail() -> None:
    await asyncio.sleep(0.001)
    raise ValueError("broken")


async def test_a_limit_after_a_failed_group_is_a_timeout() -> None:
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as tasks:
            tasks.create_task(_fail())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_a_failure_while_the_parent_still_works_ends_its_work() -> None:
    async def work() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(_fail())
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup):
        await work()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_a_cancellation_from_outside_still_counts() -> None:
    async def work() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait())

    task = asyncio.get_running_loop().create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_supervised_loop_outlives_a_failed_group_and_its_own_limits() -> None:
    rounds = 0

    async def loop() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            async with TaskGroup() as tasks:
                tasks.create_task(_fail())
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return

    await supervise("test", loop, logs.get("test"))
    assert rounds == 2
