"""The gate that keeps programs of a container from beginning, with the kernel's own fanotify."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from labfleet_runtime_agent.adapters import program_gate

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """A process with mounts of its own."""
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo; exec sleep 60"],
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_programs_begin_when_the_gate_opens(elsewhere: int) -> None:
    enter = ["nsenter", "--mount", f"--target={elsewhere}", "true"]
    with program_gate.closed(elsewhere):
        waiting = subprocess.Popen(enter)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
    assert waiting.wait(10) == 0
    assert subprocess.run(enter, check=False, timeout=10).returncode == 0


def test_programs_of_the_host_always_begin(elsewhere: int) -> None:
    """A privileged container may have moved its first process to the host's mounts."""
    for pid in (elsewhere, os.getpid(), 1 << 22):
        with program_gate.closed(pid):
            assert subprocess.run(["true"], check=False, timeout=10).returncode == 0
