"""Task groups that leave no trace on the task that used them.

A group of Python 3.11.2 (Debian 12) whose child fails cancels its own parent and, where the parent
already waits at the group's end, never takes that back: the parent counts as being cancelled ever
after, and its next `asyncio.timeout` to run out raises CancelledError instead of TimeoutError, which
ends a loop without a word (CPython gh-94398 and its kin; right in later versions).
"""

import asyncio
from types import TracebackType
from typing import Self


class TaskGroup(asyncio.TaskGroup):  # noqa: TID251 - the one place that may
    """asyncio's own, with the parent's count of cancellations as it was before."""

    _before = 0

    async def __aenter__(self) -> Self:
        """Note how often the parent is being cancelled."""
        self._before = _current().cancelling()
        await super().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the children; raise what failed as asyncio's group does."""
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup:
            task = _current()
            while task.cancelling() > self._before:
                task.uncancel()
            raise


def _current() -> "asyncio.Task[object]":
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a task group needs a task")
    return task


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure of those that happened side by side, however deep the groups are."""
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
