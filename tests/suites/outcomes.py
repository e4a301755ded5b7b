"""Running a suite, and what came of it."""

import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.suites.engines import Engine
from tests.suites.sources import Fetched, Suite

_TEST_LIMIT_S = 120
_LIMIT_S = 1700


@dataclass
class Outcome:
    """Of one file: how many tests came to which end, and which failed with what."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All tests of the file."""
        return sum(self.counts.values())


def run(
    suite: Suite, fetched: Fetched, engine: Engine, report: Path, only: str
) -> dict[str, Outcome]:
    """Run a suite as it is; outcomes by file."""
    found: dict[str, Outcome] = {}
    report.with_suffix(".log").unlink(missing_ok=True)
    for pattern in suite.files:
        for file in sorted(fetched.source.glob(pattern)):
            engine.load()
            report.unlink(missing_ok=True)
            _run_file(suite, fetched, engine, report, [str(file), *(["-k", only] if only else [])])
            found |= parse(report)
    for name in suite.left_out if not only else ():
        file, _, test = name.partition("::")
        outcome = found.setdefault(Path(file).stem, Outcome())
        outcome.counts["failed"] += 1
        outcome.failures[test] = "left out"
    return found


def _run_file(
    suite: Suite, fetched: Fetched, engine: Engine, report: Path, words: list[str]
) -> None:
    command = [str(fetched.python), "-m", "pytest", "-o", "addopts=", "-q", "--tb=short", "-rfE"]
    command += ["-p", "no:cacheprovider", f"--timeout={_TEST_LIMIT_S}", f"--junitxml={report}"]
    # The settings of aiodocker make errors of these, also of what other clients leave open.
    for warning in ("PytestDeprecationWarning", "PytestUnraisableExceptionWarning"):
        command += ["-W", f"ignore::pytest.{warning}"]
    command += [f"--deselect={name}" for name in suite.left_out]
    version = "1.41"  # the newest of dockerd 20.10, so that both are asked for the same
    env = {**engine.env, "DOCKER_TEST_API_VERSION": version, "PYTHONDONTWRITEBYTECODE": "1"}
    with report.with_suffix(".log").open("a") as log:
        subprocess.run(
            [*command, *words],
            cwd=fetched.source,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=_LIMIT_S,
            check=False,
        )


def parse(report: Path) -> dict[str, Outcome]:
    """Read pytest's report; an expected failure counts as one that passed, as pytest's does."""
    found: dict[str, Outcome] = {}
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own report
        file, name = _names(case)
        outcome = found.setdefault(file, Outcome())
        kind, words = _end(case)
        outcome.counts[kind] += 1
        if kind == "failed":
            outcome.failures[name] = words
    return found


def _names(case: ET.Element) -> tuple[str, str]:
    """`tests.integration.api_x_test.Klass` and `test` -> `api_x_test`, `Klass.test`."""
    parts = case.get("classname", "").split(".")
    index = next((i for i, part in enumerate(parts) if "test_" in part or "_test" in part), -1)
    return parts[index], ".".join([*parts[index + 1 :], case.get("name", "")])


def _end(case: ET.Element) -> tuple[str, str]:
    for child in case:
        if child.tag in ("failure", "error"):
            return "failed", child.get("message", "")
        if child.tag == "skipped":
            kind = "xfailed" if child.get("type") == "pytest.xfail" else "skipped"
            return kind, child.get("message", "")
    return "passed", ""
