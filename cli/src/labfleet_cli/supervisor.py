"""Runs the processes of a fleet on one machine: restarts what ends, ends all when told.

Started by `labfleet up` as `python -m labfleet_cli.supervisor <plan file>`, detached. Containers are
not its children: their monitors belong to init, so they outlive it and every service.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from labfleet_chassis.tasks import TaskGroup
from labfleet_cli.fleet_plan import Child

_PR_SET_PDEATHSIG = 1
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_STEADY_S = 10.0
_END_LIMIT_S = 15.0
_MOST_LOG_BYTES = 64 << 20
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Status:
    """What is known of one child; written to `services.json`."""

    name: str
    pid: int = 0
    restarts: int = -1
    started_at_s: float = 0.0
    last_exit: int | None = None


class Supervisor:
    """All children of one fleet."""

    def __init__(self, children: list[Child], run_dir: Path, log_dir: Path) -> None:
        self._children = children
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._status = {child.name: Status(child.name) for child in children}
        self._stopping = asyncio.Event()
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def run(self) -> None:
        """Run until SIGTERM, then end everything in reverse order: nats-server last."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep(child)) for child in self._children]
            await self._stopping.wait()
            bus, others = self._children[:1], self._children[1:]
            await self._end([child.name for child in others])
            await self._end([child.name for child in bus])
            for keeper in keepers:
                keeper.cancel()

    async def _keep(self, child: Child) -> None:
        pause_s = _FIRST_PAUSE_S
        status = self._status[child.name]
        while not self._stopping.is_set():
            began_s = time.monotonic()
            status.restarts += 1
            process = await self._spawn(child)
            self._running[child.name] = process
            status.pid = process.pid
            status.started_at_s = time.time()  # noqa: TID251 - shown to people
            self._write()
            status.last_exit = await process.wait()
            self._running.pop(child.name, None)
            status.pid = 0
            self._write()
            if self._stopping.is_set():
                return
            if time.monotonic() - began_s > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        log = self._log_dir / f"{child.name}.log"
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > _MOST_LOG_BYTES:
                log.replace(log.with_suffix(".log.1"))
        enter = ["nsenter", f"--net=/run/netns/{child.namespace}"] if child.namespace else []
        with log.open("ab") as file:
            return await asyncio.create_subprocess_exec(
                *enter,
                *child.argv,
                env={**_inherited(), **child.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                preexec_fn=_die_with_parent,
            )

    async def _end(self, names: list[str]) -> None:
        """SIGTERM, and SIGKILL for what has not ended in time."""
        running = [self._running[name] for name in names if name in self._running]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        waiting = [process.wait() for process in running]
        try:
            async with asyncio.timeout(_END_LIMIT_S):
                await asyncio.gather(*waiting)
        except TimeoutError:
            for process in running:
                if process.returncode is None:
                    process.kill()

    def _write(self) -> None:
        aside = self._run_dir / ".services.json"
        aside.write_text(json.dumps([asdict(status) for status in self._status.values()]))
        aside.replace(self._run_dir / "services.json")


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _inherited() -> dict[str, str]:
    names = ("PATH", "LANG", "TZ", "HOME", "TMPDIR")
    env = os.environ  # noqa: TID251 - handed on to children
    return {name: env[name] for name in names if name in env}


def load_children(path: Path) -> list[Child]:
    """Read the plan file that `up` wrote."""
    return [
        Child(each["name"], tuple(each["argv"]), each["env"], each["namespace"])
        for each in json.loads(path.read_text())
    ]


def main() -> None:
    """Entry point of the supervisor process."""
    plan = Path(sys.argv[1])
    run_dir = plan.parent
    log_dir = Path(sys.argv[2])
    (run_dir / "supervisor.pid").write_text(f"{os.getpid()}\n")
    asyncio.run(Supervisor(load_children(plan), run_dir, log_dir).run())


if __name__ == "__main__":
    main()
