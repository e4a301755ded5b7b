"""`make suites`: the test suites of other projects, unchanged, on a fleet of one host and of three."""

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.farm.environments import cache
from tests.suites import outcomes, record
from tests.suites.engines import ENGINES, engine
from tests.suites.outcomes import Outcome
from tests.suites.sources import SUITES, fetch


def main() -> int:
    """Run, print, compare with `docs/compatibility.md`; 1 if anything is worse than recorded."""
    asked = _arguments()
    if os.geteuid() != 0:
        print("a fleet needs root")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C
    suites = [each for each in SUITES if not asked.suite or each.name in asked.suite]
    fetched = {suite.name: fetch(suite.name) for suite in suites}
    complaints = []
    for name in asked.engine or ("1", "3"):
        with engine(name) as started:
            print(f"engine {name}: {started.version}")
            for suite in suites:
                report = cache() / f"{suite.name}-{name}-{os.getpid()}.xml"
                found = outcomes.run(suite, fetched[suite.name], started, report, asked.only)
                _show(suite.name, found, report)
                if not asked.only:
                    complaints += record.worse(suite.name, name, found)
    print("\n".join(complaints))
    return 1 if complaints else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.suites", description=__doc__)
    names = [each.name for each in SUITES]
    parser.add_argument("--suite", action="append", choices=names, help="may be repeated")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated")
    parser.add_argument("--only", default="", help="pytest's -k; nothing is compared then")
    return parser.parse_args()


def _show(suite: str, found: dict[str, Outcome], report: Path) -> None:
    for file, outcome in found.items():
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(outcome.counts.items()))
        print(f"{suite} {file}: {outcome.total} tests: {counts}")
        for name, words in outcome.failures.items():
            print(f"    {name}: {words[:200]!r}")
    print(f"whole output: {report.with_suffix('.log')}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
