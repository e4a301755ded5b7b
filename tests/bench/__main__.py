"""`make bench`: the targets of the design beside dockerd and docker-registry, in one run."""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from tests.bench import measures, peers, report, stores
from tests.bench.peers import Peer
from tests.bench.report import Outcome
from tests.bench.samples import Measure, Samples
from tests.bench.stores import Store

ALL: tuple[Measure[Any], ...] = (*measures.MEASURES, *stores.MEASURES)
_QUIET = 0.05
_LOOK_S = 0.5
_SETTLE_LIMIT_S = 20.0


def main() -> int:
    """Measure, print, write; 1 if a start or an exec of ours failed."""
    asked = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 150)
    if os.geteuid() != 0:
        console.print("a fleet needs root")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C
    chosen = [each for each in ALL if not asked.only or each.key in asked.only]
    loads = [os.getloadavg()]
    peers.sweep()
    outcomes: list[Outcome] = []
    versions: dict[str, str] = {}
    for measures_of, started in ((measures.MEASURES, _engines), (stores.MEASURES, _stores)):
        wanted = [each for each in chosen if each in measures_of]
        with contextlib.ExitStack() as stack:
            sides = started(asked, console, stack) if wanted else []
            versions |= {each.name: each.version for each in sides}
            outcomes += [_measure(each, sides, asked, console) for each in wanted]
    loads.append(os.getloadavg())
    report.show(console, outcomes, versions, loads)
    asked.output.write_text(json.dumps(report.document(outcomes, versions, loads), indent=1) + "\n")
    console.print(f"written to {asked.output}", markup=False)
    return 1 if any(each.ours.failures for each in outcomes) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    keys = [each.key for each in ALL]
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
    measures.warm_up(engines)
    return engines


def _stores(
    asked: argparse.Namespace, console: Console, stack: contextlib.ExitStack
) -> list[Store]:
    console.print("starting an image store")
    found = [stack.enter_context(stores.labfleet())]
    if asked.no_peer or not stores.is_peer_here():
        console.print("measuring ours alone (apt-get install docker-registry)")
    else:
        found.append(stack.enter_context(stores.docker_registry()))
    return found


def _settle() -> None:
    """Wait until the machine rests: the kernel takes namespaces away long after an engine has answered."""
    end_s = time.monotonic() + _SETTLE_LIMIT_S
    while time.monotonic() < end_s:
        before = _processor_s()
        time.sleep(_LOOK_S)
        if _processor_s() - before < _QUIET * _LOOK_S * (os.cpu_count() or 1):
            return


def _processor_s() -> float:
    """How long all processors have worked since the boot."""
    user, nice, system, _, _, irq, softirq, *_ = (
        int(word) for word in Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _measure(
    measure: Measure[Any], sides: Sequence[Any], asked: argparse.Namespace, console: Console
) -> Outcome:
    rounds, count = asked.rounds or measure.rounds, asked.count or measure.count
    stock = measure.stock if asked.stock is None else min(asked.stock, measure.stock)
    samples = {each.name: Samples() for each in sides}
    with contextlib.ExitStack() as stack:
        if measure.hosts > 1:
            sides = [stack.enter_context(peers.labfleet(measure.hosts)), *sides[1:]]
        for each in sides if stock else ():
            stack.enter_context(measures.stocked(each, stock))
        for number in range(1, rounds + 1):
            console.print(f"{measure.key} {measure.title}: round {number} of {rounds}")
            for each in sides:
                measure.slot(each, count, samples[each.name])
                _settle()
    (_, ours), *others = samples.items()
    peer, theirs = others[0] if others else ("", None)
    return Outcome(measure, rounds, count, ours, theirs, peer)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
