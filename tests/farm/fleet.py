"""Fleets for tests: named after this run, swept at its end, and the leftovers of killed runs too."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labfleet_cli import fleet as fleets
from labfleet_cli import machine
from labfleet_cli.docker_api import DockerApi
from labfleet_cli.fleet_plan import FleetPlan

LABFLEET = str(Path(sys.executable).parent / "labfleet")
_PREFIX = "lftest-"
_LAST_LINES = 20
_MOST_OF_A_LINE = 600


def sweep_leftovers() -> None:
    """Remove the fleets of runs whose process is gone."""
    for folder in Path("/var/lib").glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            subprocess.run([LABFLEET, "down", "--all", "--fleet", folder.name], check=False)


def free_port() -> int:
    """A port of this machine that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str
    raw: bytes

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[bytes]) -> "Done":
        """Its texts without the space around them."""
        out, err = (each.decode(errors="replace").strip() for each in (done.stdout, done.stderr))
        return cls(done.returncode, out, err, done.stdout)


@dataclass
class Fleet:
    """A running fleet and the docker command line for it."""

    plan: FleetPlan
    config: Path

    @property
    def url(self) -> str:
        """For clients of the Docker API."""
        return f"unix://{self.plan.socket}"

    @property
    def env(self) -> dict[str, str]:
        """Environment of the docker command line."""
        return {**os.environ, "DOCKER_HOST": self.url, "DOCKER_CONFIG": str(self.config)}

    def docker(
        self,
        *words: str,
        stdin: bytes = b"",
        timeout_s: float = 60,
        code: int | None = 0,
        env: dict[str, str] | None = None,
    ) -> Done:
        """Run the docker command line; `code` is the expected exit code, None takes any."""
        done = subprocess.run(
            ["docker", *words],
            input=stdin,
            capture_output=True,
            env=env or self.env,
            timeout=timeout_s,
            check=False,
        )
        found = Done.of(done)
        if code is not None:
            assert found.code == code, f"docker {' '.join(words)}: {found.code}: {found.err}"
        return found

    @contextlib.contextmanager
    def start(
        self, *words: str, stdin: int = subprocess.DEVNULL
    ) -> "Iterator[subprocess.Popen[bytes]]":
        """Run the docker command line beside the test; killed at the end."""
        with subprocess.Popen(
            ["docker", *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
        ) as client:
            try:
                yield client
            finally:
                client.kill()

    def labfleet(self, *words: str, code: int | None = 0, stdin: bytes = b"") -> Done:
        """Run the operator's command line for this fleet."""
        done = subprocess.run(
            [LABFLEET, *words, "--fleet", self.plan.name],
            input=stdin,
            capture_output=True,
            timeout=150,
            check=False,
        )
        found = Done(done.returncode, done.stdout.decode(), done.stderr.decode(), done.stdout)
        if code is not None:
            assert found.code == code, f"labfleet {' '.join(words)}: {found.out}{found.err}"
        return found

    def inspect(self, name: str) -> dict:
        """Inspect a container."""
        return json.loads(self.docker("inspect", name).out)[0]

    def host_of(self, name: str) -> str:
        """Host of a container."""
        return self.inspect(name)["Node"]["Name"]

    def clean(self) -> None:
        """Remove all containers, volumes and networks that tests made."""
        with DockerApi(self.plan.socket) as api:
            api.remove_everything()
            for network in api.get("/networks"):
                if network["Name"] not in ("bridge", "none", "host"):
                    api.delete(f"/networks/{network['Id']}")
            until(lambda: all(" 0 containers" in row[1] for row in _hosts(api)))

    def service_pid(self, name: str) -> int:
        """Pid of a supervised process; 0 while it is down."""
        rows = json.loads((self.plan.run_dir / "services.json").read_text())
        return next(row["pid"] for row in rows if row["name"] == name)

    def log_of(self, name: str) -> str:
        """All that one of our processes has written down."""
        return (self.plan.state_dir / "log" / f"{name}.log").read_text(errors="replace")

    def complaints(self) -> str:
        """What our processes last called an error, with what they wrote when they broke down."""
        found = []
        for path in sorted((self.plan.state_dir / "log").glob("*.log")):
            lines = self.log_of(path.stem).splitlines()
            errors = [line for line in lines if '"level": "error"' in line or line[:1] not in "{["]
            found += [f"{path.stem}: {line[-_MOST_OF_A_LINE:]}" for line in errors[-_LAST_LINES:]]
        return "\n".join(found)

    def kill_service(self, name: str) -> int:
        """Kill -9 one of our processes; return its pid."""
        pid = self.service_pid(name)
        assert pid, f"{name} does not run"  # 0 would be this process's own group
        os.kill(pid, 9)
        return pid

    @contextlib.contextmanager
    def freeze_service(self, name: str) -> Iterator[None]:
        """Let one of our processes hear everything and do nothing, until the end of the block."""
        pid = self.service_pid(name)
        assert pid, f"{name} does not run"  # 0 would be this process's own group
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def wait_ready(self) -> None:
        """Wait until every service answers."""
        fleets.wait_ready(self.plan)


def until(condition: Callable[[], object], timeout_s: float = 15, every_s: float = 0.05) -> object:
    """Wait for a condition; its last value is returned, or the assertion fails."""
    end_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end_s, f"not within {timeout_s} s: {condition}"
        time.sleep(every_s)


def until_clean(fleet: Fleet) -> None:
    """Wait until fsck is clean; fails with its findings after 40 seconds."""
    end_s = time.monotonic() + 40
    while (done := fleet.labfleet("fsck", code=None)).code != 0:
        assert time.monotonic() < end_s, done.out + done.err


@contextlib.contextmanager
def running_fleet(config: Path, hosts: int, suffix: str = "", **wishes: object) -> Iterator[Fleet]:
    """A whole fleet with virtual hosts and the image busybox; taken away at the end."""
    name = f"{_PREFIX}{os.getpid()}{suffix}"
    words = [LABFLEET, "up", "--fleet", name, "--hosts", str(hosts)]
    for key, value in wishes.items():
        words += [f"--{key.replace('_', '-')}", str(value)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + _logs(name)
        plan = fleets.load(name)
        assert plan is not None
        yield Fleet(plan, config)
    finally:
        plan = fleets.load(name) or fleets.choose(name, {"hosts": hosts})
        fleets.stop(plan)
        problems = machine.sweep(plan)
        assert not problems, problems


def _logs(name: str) -> str:
    folder = Path("/var/lib") / name / "log"
    return "\n".join(
        f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
        for path in sorted(folder.glob("*.log"))
    )


def _hosts(api: DockerApi) -> list[list[str]]:
    """Rows of the hosts in `docker info`."""
    return api.get("/info")["DriverStatus"][1:]
