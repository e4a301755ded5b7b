"""Time as an argument."""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never steps and counts suspended time."""


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Seconds of CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
