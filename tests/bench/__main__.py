"""`make bench`: the targets of the design that dockerd can be measured at, side by side."""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from tests.bench import measures, peers, report
from tests.bench.measures import MEASURES, Measure
from tests.bench.peers import Peer
from tests.bench.report import Outcome


def main() -> int:
    """Measure, print, write; 1 if a start or an exec of ours failed."""
    asked = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 150)
    if os.geteuid() != 0:
        console.print("a fleet needs root")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C
    chosen = [each for each in MEASURES if not asked.only or each.key in asked.only]
    loads = [os.getloadavg()]
    peers.sweep()
    with contextlib.ExitStack() as stack:
        engines = _engines(asked, console, stack)
        measures.warm_up(engines)
        outcomes = [_measure(each, engines, asked, console) for each in chosen]
    loads.append(os.getloadavg())
    report.show(console, outcomes, engines, loads)
    asked.output.write_text(json.dumps(report.document(outcomes, engines, loads), indent=1) + "\n")
    console.print(f"written to {asked.output}", markup=False)
    return 1 if any(each.ours.failures for each in outcomes) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    keys = [each.key for each in MEASURES]
    parser.add_argument("--only", action="append", choices=keys, help="may be repeated")
    parser.add_argument("--rounds", type=_positive, help="slots of each engine")
    parser.add_argument("--count", type=_positive, help="starts or execs a slot")
    parser.add_argument("--stock", type=_positive, help="at most so many containers in a list")
    parser.add_argument("--no-peer", action="store_true", help="measure ours alone")
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    return parser.parse_args()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _engines(
    asked: argparse.Namespace, console: Console, stack: contextlib.ExitStack
) -> list[Peer]:
    console.print("starting a fleet of one host")
    engines = [stack.enter_context(peers.labfleet())]
    absent = peers.missing_programs()
    if asked.no_peer:
        console.print("measuring ours alone, as asked")
    elif absent:
        console.print(
            f"measuring ours alone: {', '.join(absent)} not found (apt-get install docker.io)"
        )
    else:
        console.print("starting a dockerd in namespaces of its own")
        engines.append(stack.enter_context(peers.dockerd()))
    return engines


def _measure(
    measure: Measure, engines: Sequence[Peer], asked: argparse.Namespace, console: Console
) -> Outcome:
    rounds, count = asked.rounds or measure.rounds, asked.count or measure.count
    stock = measure.stock if asked.stock is None else min(asked.stock, measure.stock)
    samples = {engine.name: measures.Samples() for engine in engines}
    with contextlib.ExitStack() as stack:
        if measure.hosts > 1:
            engines = [stack.enter_context(peers.labfleet(measure.hosts)), *engines[1:]]
        for engine in engines:
            stack.enter_context(measures.stocked(engine, stock))
        for number in range(1, rounds + 1):
            console.print(f"{measure.key} {measure.title}: round {number} of {rounds}")
            for engine in engines:
                measures.take_turn(measure, engine, count, samples[engine.name])
    ours, *others = samples.values()
    return Outcome(measure, rounds, count, ours, others[0] if others else None)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
