"""A nats-server of a test's own: durable as a fleet's, killed and brought back at will."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

_PROGRAM = Path(sys.executable).parent / "nats-server"
_LIMIT_S = 15.0


class NatsServer:
    """One server on a free port of the loopback, the same one after each start."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = -1  # any
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start on the files that an earlier life has left; return once it takes clients."""
        config = self._home / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self._port}"\n'
            f'jetstream {{ store_dir: "{self._home / "store"}", sync_interval: always }}\n'
        )
        self._process = subprocess.Popen(
            [str(_PROGRAM), "-c", str(config), "--ports_file_dir", str(self._home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._port = self._announced_port(self._process)

    def _announced_port(self, process: subprocess.Popen[bytes]) -> int:
        """The server writes its ports down once it listens."""
        file = self._home / f"{_PROGRAM.name}_{process.pid}.ports"
        end_s = time.monotonic() + _LIMIT_S
        while True:
            assert process.poll() is None, f"nats-server ended with {process.returncode}"
            try:
                return int(json.loads(file.read_text())["nats"][0].rpartition(":")[2])
            except (FileNotFoundError, ValueError):
                assert time.monotonic() < end_s, "nats-server does not listen"
                time.sleep(0.01)

    def kill(self) -> None:
        """End it as a power loss would: `kill -9`."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order; again is nothing."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
