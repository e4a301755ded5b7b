"""Virtual time: a heap of events, futures, and processes whose generators are driven by hand.

A generator yields a number (sleep so many seconds) or a `Future` (wait for it); every yield is a place
where its process may crash. What a process keeps in memory dies with it, what it did elsewhere stays.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from labfleet_proto.errors import UnavailableError

Steps = Generator[Any, Any, Any]

_TRACE_LENGTH = 60
_MOST_EVENTS = 2_000_000


class Violation(AssertionError):  # noqa: N818 - the word of this suite
    """An invariant does not hold; `rule` is its short name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"[{rule}] {text}")
        self.rule = rule


class Loop:
    """The clock, and what happens when. Equal times keep the order of asking."""

    def __init__(self, rng: random.Random) -> None:
        self.now = 0.0
        self.rng = rng
        self.trace: deque[str] = deque(maxlen=_TRACE_LENGTH)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def at(self, delay_s: float, work: Callable[[], None]) -> None:
        self.at_time(self.now + delay_s, work)

    def at_time(self, time_s: float, work: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (time_s, self._number, work))

    def run(self, until_s: float) -> None:
        while self._heap and self._heap[0][0] <= until_s:
            self.now, _, work = heapq.heappop(self._heap)
            work()
            assert self._number < _MOST_EVENTS, "the simulation does not come to rest"
        self.now = until_s

    def note(self, who: str, what: str) -> None:
        self.trace.append(f"{self.now:9.3f} {who:11} {what}")


class Future:
    """A value or an error that comes later."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._then: list[Callable[[Future], None]] = []

    def set(self, value: Any = None, error: BaseException | None = None) -> None:
        if self.is_done:
            return
        self.is_done, self.value, self.error = True, value, error
        for work in self._then:
            self._call(work)

    def then(self, work: Callable[["Future"], None]) -> None:
        if self.is_done:
            self._call(work)
        else:
            self._then.append(work)

    def _call(self, work: Callable[["Future"], None]) -> None:
        self._loop.at(0, lambda: work(self))


class Signal:
    """Set and cleared like an asyncio.Event."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.is_set = False
        self._waiting = Future(loop)

    def set(self) -> None:
        self.is_set = True
        self._waiting.set()
        self._waiting = Future(self._loop)

    def clear(self) -> None:
        self.is_set = False

    def wait(self) -> Future:
        if not self.is_set:
            return self._waiting
        done = Future(self._loop)
        done.set()
        return done


class Lock:
    """At most one holder; `yield from lock.take()`, then `free`."""

    def __init__(self, loop: Loop) -> None:
        self._freed = Signal(loop)
        self.is_held = False

    def take(self) -> Steps:
        while self.is_held:
            self._freed.clear()
            yield self._freed.wait()
        self.is_held = True

    def free(self) -> None:
        self.is_held = False
        self._freed.set()


def within(loop: Loop, future: Future, limit_s: float, what: str) -> Steps:
    """Wait for a future at most so long. Raises UnavailableError, or its error."""
    first = Future(loop)
    future.then(lambda done: first.set(done.value, done.error))
    loop.at(limit_s, lambda: first.set(error=UnavailableError(f"{what}: no answer")))
    return (yield first)


class Process:
    """One life of a service: its tasks end together, at any step."""

    def __init__(self, loop: Loop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.is_alive = True
        self.born_s = loop.now
        self.frozen_until_s = 0.0
        self.fuse: int | None = None
        """Steps until it crashes; None: never."""
        self.on_crash: Callable[[], None] = lambda: None
        self._tasks: dict[Future, Steps] = {}

    def spawn(self, steps: Steps) -> Future:
        """Run a generator; the future has its result, or UnavailableError after a crash."""
        result = Future(self.loop)
        if self.is_alive:
            self._tasks[result] = steps
            self.loop.at(0, lambda: self._step(result, None, None))
        else:
            result.set(error=UnavailableError(f"{self.name} is gone"))
        return result

    def crash(self) -> None:
        if not self.is_alive:
            return
        self.is_alive = False
        self.loop.note(self.name, "CRASH")
        for result, steps in list(self._tasks.items()):
            if not steps.gi_running:
                steps.close()
            result.set(error=UnavailableError(f"{self.name} crashed"))
        self._tasks.clear()
        self.on_crash()

    def _burns_down(self) -> bool:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.crash()
        return not self.is_alive

    def _step(self, task: Future, value: Any, error: BaseException | None) -> None:
        if not self.is_alive or task not in self._tasks:
            return
        if self.frozen_until_s > self.loop.now:
            self.loop.at_time(self.frozen_until_s, lambda: self._step(task, value, error))
            return
        if self._burns_down():
            return
        steps = self._tasks[task]
        try:
            wish = steps.throw(error) if error is not None else steps.send(value)
        except StopIteration as end:
            self._tasks.pop(task, None)
            task.set(end.value)
        except Violation:
            raise
        except Exception as exc:
            self._tasks.pop(task, None)
            if not hasattr(exc, "code"):  # not a LabfleetError: a bug of core or simulation
                raise
            task.set(error=exc)
        else:
            if isinstance(wish, Future):
                wish.then(lambda done: self._step(task, done.value, done.error))
            else:
                self.loop.at(wish, lambda: self._step(task, None, None))
