"""A small client of the Docker Engine API: one connection, kept alive, no program forked."""

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

_LIMIT_S = 180.0
_CODE_LIMIT_S = 5.0


class EngineError(Exception):
    """The engine refused; the message is its own."""


class Client(http.client.HTTPConnection):
    """Blocking calls over a unix socket. Raises EngineError, OSError."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=_LIMIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_LIMIT_S)
        self.sock.connect(str(self._path))

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send JSON and decode the JSON answer; None for an empty one."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Length": str(len(data))}
        if data:
            headers["Content-Type"] = "application/json"
        self.request(method, path, data or None, headers)
        return self._answer(self.getresponse())

    def upload(self, path: str, tar: Path) -> None:
        """Post a tar file."""
        headers = {
            "Content-Type": "application/x-tar",
            "Content-Length": str(tar.stat().st_size),
        }
        with tar.open("rb") as source:
            self.request("POST", path, source, headers)
            self.getresponse().read()

    @staticmethod
    def _answer(answer: http.client.HTTPResponse) -> Any:
        raw = answer.read()
        if answer.status >= 300:
            try:
                message = json.loads(raw)["message"]
            except (ValueError, KeyError):
                message = raw.decode(errors="replace")
            raise EngineError(f"{answer.status}: {message}")
        return json.loads(raw) if raw else None

    def create(self, spec: dict[str, Any]) -> str:
        """Create a container; return its id."""
        return str(self.call("POST", "/containers/create", spec)["Id"])

    def start(self, container: str) -> None:
        """Start a container; the answer comes when its process runs."""
        self.call("POST", f"/containers/{container}/start")

    def is_running(self, container: str) -> bool:
        """Whether the engine says that it runs."""
        return bool(self.call("GET", f"/containers/{container}/json")["State"]["Running"])

    def remove(self, container: str) -> None:
        """Kill and remove a container."""
        self.call("DELETE", f"/containers/{container}?force=1&v=1")

    def execute(self, container: str, argv: list[str]) -> int:
        """Run a command in a container as `docker exec` does, attached to its end; its exit code."""
        wish = {"Cmd": argv, "AttachStdout": True, "AttachStderr": True}
        name = self.call("POST", f"/containers/{container}/exec", wish)["Id"]
        stream = Client(self._path)
        try:
            stream.read_upgraded(f"/exec/{name}/start", {"Detach": False, "Tty": False})
        finally:
            stream.close()
        end_s = time.monotonic() + _CODE_LIMIT_S
        while True:
            code = self.call("GET", f"/exec/{name}/json")["ExitCode"]
            if code is not None:
                return int(code)
            if time.monotonic() > end_s:
                raise EngineError("an exec whose stream has ended has no exit code")

    def read_upgraded(self, path: str, body: object) -> bytes:
        """Take over the connection and read what comes to the end."""
        headers = {
            "Content-Type": "application/json",
            "Connection": "Upgrade",
            "Upgrade": "tcp",
        }
        self.request("POST", path, json.dumps(body).encode(), headers)
        answer = self.getresponse()
        if answer.status not in (101, 200):
            self._answer(answer)
        return answer.fp.read()  # http.client knows no bytes after a 101
