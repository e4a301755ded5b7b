"""Short commands in a running container whose words are kept: probes of health checks."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labfleet_chassis import process
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters.conmon import Runtime
from labfleet_runtime_agent.adapters.execs import entering

_CRUN_FAILED = 255


@dataclass(frozen=True)
class Command:
    """What to run, and how long it may take and say."""

    name: str
    """Of its files in the bundle."""
    oci_process: dict[str, Any]
    limit_s: float
    most_output: int
    """Bytes that are kept."""


@dataclass(frozen=True)
class Said:
    """What came of a command."""

    exit_code: int | None
    """None if it was not done in time."""
    output: str
    is_failure_of_crun: bool = False
    """The command could not be run: the output says why."""


async def run(
    runtime: Runtime, container: ContainerId, command: Command, cgroup_files: Sequence[Path]
) -> Said:
    """Run a command and return the beginning of what it printed; killed after its limit.

    It prints into memory that is charged to the container, as the command itself writes it.
    """
    scratch = runtime.bundle_of(container)
    file, complaint, pid_file = (
        scratch / f"{command.name}.{kind}" for kind in ("json", "log", "pid")
    )
    file.write_text(json.dumps(command.oci_process))
    argv = runtime.crun_argv("--log", str(complaint), "exec", "--process", str(file))
    argv += ["--pid-file", str(pid_file), container]
    try:
        with os.fdopen(os.memfd_create("probe"), "w+b", buffering=0) as output:
            child = subprocess.Popen(  # noqa: ASYNC220 - a vfork, far below a millisecond
                entering(cgroup_files, argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            code: int | None = None
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(command.limit_s):
                        code = await process.ended(child)
            finally:
                if child.returncode is None:
                    _kill(child, pid_file)
            output.seek(0)
            text = output.read(command.most_output).decode(errors="replace")
        if code == _CRUN_FAILED and complaint.exists():
            return Said(code, complaint.read_text(errors="replace").strip(), True)
        return Said(code if code is None or code >= 0 else 128 - code, text)
    finally:
        for each in (file, complaint, pid_file):
            each.unlink(missing_ok=True)


def _kill(child: subprocess.Popen[bytes], pid_file: Path) -> None:
    """Kill the command, whose parent is crun, with what it began, then crun."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    child.kill()
    child.wait()
