"""The table for people and the document for programs."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.bench.samples import Measure, Samples

_MOST_ERRORS = 5


@dataclass(frozen=True)
class Outcome:
    """One measure, done."""

    measure: Measure[Any]
    rounds: int
    count: int
    ours: Samples
    theirs: Samples | None
    peer: str
    """Whose samples `theirs` are."""

    @property
    def ratio(self) -> float | None:
        """How many times faster we are; None without a peer or without samples."""
        if self.theirs is None or not self.theirs.took_s or not self.ours.took_s:
            return None
        return statistics.median(self.theirs.took_s) / statistics.median(self.ours.took_s)

    @property
    def is_met(self) -> bool | None:
        """Whether the first bar is reached without a failure of ours; None if it cannot be said."""
        if self.ours.failures:
            return False
        return None if self.ratio is None else self.ratio >= self.measure.first_bar


def document(
    outcomes: Sequence[Outcome],
    versions: Mapping[str, str],
    loads: Sequence[tuple[float, float, float]],
) -> dict[str, Any]:
    """Everything that was measured; times in milliseconds."""
    return {
        "machine": {"cores": os.cpu_count(), "kernel": platform.release()},
        "engines": dict(versions),
        "load_average": {"start": loads[0], "end": loads[-1]},
        "measures": {
            each.measure.key: {
                "title": each.measure.title,
                "rounds": each.rounds,
                "count": each.count,
                "labfleet": _samples(each.ours),
                "peer": each.peer,
                "theirs": None if each.theirs is None else _samples(each.theirs),
                "ratio": None if each.ratio is None else round(each.ratio, 2),
                "first_bar": each.measure.first_bar,
                "is_met": each.is_met,
            }
            for each in outcomes
        },
    }


def _samples(samples: Samples) -> dict[str, Any]:
    took = [round(value * 1000, 2) for value in samples.took_s]
    return {
        "median_ms": round(statistics.median(took), 2) if took else None,
        "min_ms": min(took, default=None),
        "max_ms": max(took, default=None),
        "samples_ms": took,
        "failures": len(samples.failures),
        "errors": samples.failures[:_MOST_ERRORS],
    }


def show(
    console: Console,
    outcomes: Sequence[Outcome],
    versions: Mapping[str, str],
    loads: Sequence[tuple[float, float, float]],
) -> None:
    """Print the table."""
    table = Table(title=", ".join(" ".join(each) for each in versions.items()))
    table.add_column("measure")
    for name in ("ours", "min..max", "theirs", "min..max", "ratio", "first bar"):
        table.add_column(name, justify="right")
    table.add_column("met")
    for each in outcomes:
        table.add_row(
            f"{each.measure.key} {each.measure.title} ({each.rounds} x {each.count})",
            *_cells(each.ours),
            *(("-", "-") if each.theirs is None else _cells(each.theirs)),
            "-" if each.ratio is None else f"{each.ratio:.2f}x",
            f"{each.measure.first_bar:g}x",
            {None: "-", True: "yes", False: "no"}[each.is_met],
        )
    console.print(table)
    first, last = (" ".join(f"{value:.2f}" for value in load) for load in (loads[0], loads[-1]))
    console.print(f"load average: {first} at the start, {last} at the end")
    for each in outcomes:
        for name, samples in (("ours", each.ours), (each.peer, each.theirs)):
            for error in (samples.failures if samples else [])[:_MOST_ERRORS]:
                console.print(f"{each.measure.key} {name}: {error}", markup=False)


def _cells(samples: Samples) -> tuple[str, str]:
    if not samples.took_s:
        return f"{len(samples.failures)} failed", "-"
    median = statistics.median(samples.took_s)
    failed = f", {len(samples.failures)} failed" if samples.failures else ""
    return (
        _text(median) + failed,
        f"{_text(min(samples.took_s))}..{_text(max(samples.took_s))}",
    )


def _text(took_s: float) -> str:
    return f"{took_s:.2f} s" if took_s >= 1 else f"{took_s * 1000:.1f} ms"
