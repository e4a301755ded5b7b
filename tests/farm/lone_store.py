"""An image store by itself: a nats-server and the service on one directory, killed and begun again at will."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
from tests.farm.fleet import free_port, until
from tests.farm.nats import NatsServer

PROGRAM = Path(sys.executable).parent / "labfleet-image-store"
_SECRET = "of-this-test"  # noqa: S105
_LIMIT_S = 60.0
"""A busy disk flushes slowly."""


class LoneStore:
    """The store of a fleet that has nothing else."""

    def __init__(self, home: Path, log: Path, **settings: object) -> None:
        self.home = home
        self.log = log
        self.images = home / "images"
        self.port = free_port()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        (home / "nats").mkdir(parents=True, exist_ok=True)
        self.nats = NatsServer(home / "nats")
        self._begin()

    def _begin(self) -> None:
        wanted = {
            "NATS_URL": self.nats.url,
            "STATE_DIR": self.images,
            "FLEET_SECRET": _SECRET,
            "DATA_KEY": "00" * 32,
            "DATA_PORT": 0,
            "LISTEN": f"127.0.0.1:{self.port}",
            "REGISTRY": f"127.0.0.1:{self.port}",
            **self._settings,
        }
        prefix = "LABFLEET_IMAGE_STORE_"
        env = {**os.environ, **{f"{prefix}{name}": str(value) for name, value in wanted.items()}}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([str(PROGRAM)], env=env, stdout=log, stderr=log)
        until(self._answers, _LIMIT_S)

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/v2/").status_code in (200, 401)
        return False

    @property
    def pid(self) -> int:
        """Of the service."""
        assert self._process is not None
        return self._process.pid

    @property
    def nats_url(self) -> str:
        """For a bus of the test's own."""
        return self.nats.url

    def client(self) -> httpx.Client:
        """An operator's client of the registry."""
        base = f"http://127.0.0.1:{self.port}/v2"
        return httpx.Client(base_url=base, auth=("operators", _SECRET), timeout=_LIMIT_S)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Neither writes anything within the block."""
        pids = (self.pid, self.nats.pid)
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill -9 both; again is nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.nats.kill()

    def restart(self) -> None:
        """Kill both and begin again on what is there."""
        self.kill()
        self.nats.start()
        self._begin()


@contextlib.contextmanager
def lone_store(home: Path, log: Path, **settings: object) -> Iterator[LoneStore]:
    """A store for the length of a block."""
    made = LoneStore(home, log, **settings)
    try:
        yield made
    finally:
        made.kill()
