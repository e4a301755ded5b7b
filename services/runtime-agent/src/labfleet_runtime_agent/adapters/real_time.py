"""Processor time for real-time priorities: what a group may have, its parents must have been given."""

import math
from fractions import Fraction
from pathlib import Path

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.adapters.cgroup_files import read_int, write

MISSING = "Your kernel does not support CPU real-time scheduler"
"""Docker's words."""
_PERIOD, _RUNTIME = "cpu.rt_period_us", "cpu.rt_runtime_us"
_KERNELS_PERIOD_US = 1_000_000


def grant(root: Path, group: Path, period_us: int, runtime_us: int) -> None:
    """Give a group below `root` its time, after each group above it has room for all of its own.

    Raises InvalidRequestError where the kernel has no such files, InternalError naming what it refused.
    """
    if not (root / _RUNTIME).exists():
        raise InvalidRequestError(MISSING)
    period_us = period_us or _KERNELS_PERIOD_US
    share, child = Fraction(runtime_us, period_us), group
    shares: list[tuple[Path, Fraction]] = []
    while child.parent != root:
        above = child.parent
        others = (each for each in above.iterdir() if each.is_dir() and each != child)
        share += sum(_share(each) for each in others)
        shares.append((above, share))
        child = above
    for above, wanted in reversed(shares):
        if _share(above) < wanted:
            write(above / _RUNTIME, str(math.ceil(wanted * read_int(above / _PERIOD))))
    write(group / _PERIOD, str(period_us))
    write(group / _RUNTIME, str(runtime_us))


def _share(group: Path) -> Fraction:
    return Fraction(max(read_int(group / _RUNTIME), 0), max(read_int(group / _PERIOD), 1))
