"""The benchmark itself, with so few rounds that it says nothing but that it works."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_benchmark_measures_both_engines_without_a_failure_of_ours(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    words = ["--rounds", "1", "--count", "3", "--stock", "20", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert set(found["measures"]) == {"P1", "P2", "P5", "P6", "P7a", "P7b", "P7c"}
    for measure in found["measures"].values():
        assert measure["labfleet"]["failures"] == 0, measure["labfleet"]["errors"]
        assert measure["labfleet"]["median_ms"] > 0
        if measure["theirs"] is not None:
            assert measure["ratio"] > 0
