"""schemathesis against a fleet: no server error, no hang, no leak, whatever is sent."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm.environments import python_environment
from tests.farm.fleet import Fleet, running_fleet, until_clean
from tests.farm.traces import until_traceless
from tests.fuzz.description import description
from tests.fuzz.forwarder import forwarded

from labfleet_cli.docker_api import DockerApi

FUZZ = Path(__file__).parents[1] / "fuzz"
SEED = 20261124


@pytest.fixture
def lonely_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of its own: prune may take the images that other tests need."""
    with running_fleet(tmp_path, hosts=1, suffix="-fuzz") as fleet:
        yield fleet


def _fuzz(fleet: Fleet, scratch: Path, phases: str, examples: int, seed: int) -> str:
    fleet.docker("run", "--name", "fuzzed", "busybox", "echo", "one")
    fleet.docker("run", "-d", "--name", "alive", "busybox", "sleep", "600")
    document = scratch / "openapi.json"
    document.write_text(json.dumps(description(["fuzzed"])))
    program = python_environment(FUZZ / "schemathesis.lock") / "bin" / "st"
    with forwarded(fleet.plan.socket) as url:
        words = [str(program), "--config-file", str(FUZZ / "schemathesis.toml"), "run"]
        words += [str(document), "--url", url, "--phases", phases, "--seed", str(seed)]
        words += ["--checks", "not_a_server_error", "--request-timeout", "30"]
        words += ["--max-examples", str(examples), "--suppress-health-check", "all"]
        words += ["--no-color", "--warnings", "off", "--continue-on-failure"]
        done = subprocess.run(
            words, cwd=scratch, capture_output=True, text=True, timeout=1500, check=False
        )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report[-15000:]
    assert fleet.docker("exec", "alive", "echo", "here").out == "here"
    with DockerApi(fleet.plan.socket) as api:
        api.remove_everything()
    until_clean(fleet)
    until_traceless(fleet)
    return report


@pytest.mark.timeout(600)
def test_a_short_run_finds_nothing(lonely_fleet: Fleet, tmp_path: Path) -> None:
    _fuzz(lonely_fleet, tmp_path, "fuzzing", 5, SEED)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_long_run_finds_nothing(lonely_fleet: Fleet, tmp_path: Path, seed: int) -> None:
    _fuzz(lonely_fleet, tmp_path, "coverage,fuzzing", 100, seed)
