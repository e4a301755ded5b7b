"""What `docs/compatibility.md` says of the suites: how many pass, and why the others do not."""

import re
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path

from tests.suites.outcomes import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
_COUNT = re.compile(
    r"\| `(?P<suite>[\w-]+)` `(?P<file>\w+)` \| (?P<total>\d+) "
    r"\| (?P<one>\d+|-) \| (?P<three>\d+|-) \| (?P<dockerd>\d+|-) \|"
)
_FAILURE = re.compile(r"\| `(?P<file>\w+)` `(?P<test>[^`]+)` \| (?P<why>[^|]+) \|")
_COLUMN = {"1": "one", "3": "three", "dockerd": "dockerd"}


def passes(suite: str, engine: str) -> dict[str, int]:
    """Recorded number of tests that pass, by file."""
    rows = _COUNT.finditer(PAGE.read_text())
    column = _COLUMN[engine]
    return {
        row["file"]: int(row[column])
        for row in rows
        if row["suite"] == suite and row[column].isdigit()
    }


def explained() -> list[tuple[str, str]]:
    """File and name of every test whose failure is explained; a name may have `*`."""
    return [(row["file"], row["test"]) for row in _FAILURE.finditer(PAGE.read_text())]


def worse(suite: str, engine: str, found: dict[str, Outcome]) -> list[str]:
    """What is worse than recorded, a line each."""
    known, complaints = explained(), []
    for file, least in passes(suite, engine).items():
        counts = found.get(file, Outcome()).counts
        passed = counts["passed"] + counts["xfailed"]  # some of these pass now and then
        if passed < least:
            complaints.append(f"{suite} {file} on {engine}: {passed} pass, recorded are {least}")
    if engine != "dockerd":
        for file, outcome in found.items():
            for name in outcome.failures:
                if not any(file == each and fnmatch(name, test) for each, test in known):
                    complaints.append(f"{suite} {file} {name} on {engine}: fails, unexplained")
    return complaints
