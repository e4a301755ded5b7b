"""Client libraries of others, each in an environment of its own: dockerode, Testcontainers, JupyterHub's spawner."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.farm.environments import CLIENTS, node_modules, python_environment
from tests.farm.fleet import Fleet, until

pytestmark = pytest.mark.timeout(600)  # the first run fetches


def _words(fleet: Fleet, command: list[str], **env: str) -> dict[str, Any]:
    """Run a program that prints what it saw."""
    done = subprocess.run(
        command, env={**fleet.env, **env}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_dockerode(fleet: Fleet) -> None:
    home = node_modules(CLIENTS / "node")
    program = str(CLIENTS / "node" / "with_dockerode.js")
    seen = _words(fleet, ["node", program], NODE_HOME=str(home), SOCKET=str(fleet.plan.socket))
    assert (seen["ping"], seen["version"]) == ("OK", "1.50")
    assert "busybox:latest" in seen["pulled"]
    assert seen["run"] == {"code": 7, "out": "out\n", "err": "err\n"}
    assert seen["attach"] == {"code": 0, "out": "one\ntwo\n"}
    assert seen["exec"] == {"code": 5, "out": "got this\n"}
    assert seen["terminal"] == "31 99\r\n"
    assert seen["files"] == {"note": "text"}
    assert seen["logs"] == ["1", "2", "3"]
    assert (seen["listed"], seen["top"], seen["state"]) == (["/node-box"], 1, "running")
    assert (seen["memory"], seen["code"]) == (64 << 20, 137)
    assert seen["missing"] == [404, "No such container: nosuch"]
    life = [each for each in seen["events"] if not each.startswith("exec")]
    assert [each for each in life if each in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip


def test_testcontainers(fleet: Fleet) -> None:
    python = python_environment(CLIENTS / "python.lock") / "bin" / "python"
    # Its reaper would get the docker socket as a bind mount.
    seen = _words(
        fleet,
        [str(python), str(CLIENTS / "with_testcontainers.py")],
        TESTCONTAINERS_RYUK_DISABLED="true",
    )
    assert seen["waits"] == dict.fromkeys(("log", "http", "port", "exec"), "here")
    assert seen["health"] == "healthy"
    assert seen["answer"] == [0, "here\n"]
    assert seen["colour"] == [3, "blue\n"]
    assert seen["logs"] == ["", ""]
    assert fleet.docker("ps", "-aq").out == ""
    assert fleet.docker("network", "ls", "-q", "--filter", "label=org.testcontainers").out == ""


@dataclass
class Hub:
    """A running JupyterHub."""

    url: str
    token: str

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Ask its API."""
        request = urllib.request.Request(
            f"{self.url}/hub/api{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, None


def _free_ports(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            found.append(str(listener.getsockname()[1]))
        return found


@pytest.fixture
def hub(fleet: Fleet, tmp_path: Path) -> Iterator[Hub]:
    python = python_environment(CLIENTS / "python.lock") / "bin"
    proxy = node_modules(CLIENTS / "node") / "node_modules" / "configurable-http-proxy" / "bin"
    ports = dict(zip(("PROXY_PORT", "PROXY_API_PORT", "HUB_PORT"), _free_ports(3), strict=True))
    found = Hub(f"http://127.0.0.1:{ports['PROXY_PORT']}", secrets.token_hex(16))
    env = {
        **fleet.env,
        **ports,
        "PATH": f"{python}:{os.environ['PATH']}",
        "HUB_TOKEN": found.token,
        "PROXY_PROGRAM": str(proxy / "configurable-http-proxy"),
    }
    words = [str(python / "jupyterhub"), "--config", str(CLIENTS / "jupyterhub_config.py")]
    log = tmp_path / "hub.log"
    with log.open("wb") as out, subprocess.Popen(
        words, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            until(lambda: process.poll() is not None or _answers(found), 60, 0.2)
            assert process.poll() is None, log.read_text()[-3000:]
            yield found
        except BaseException:
            print(log.read_text()[-5000:])  # noqa: T201 - shown with the failure
            raise
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _answers(hub: Hub) -> bool:
    try:
        return hub.ask("GET", "/")[0] == 200
    except OSError:
        return False


def test_dockerspawner(fleet: Fleet, hub: Hub) -> None:
    fleet.docker("network", "create", "class")
    for name in ("ann", "bob"):
        assert hub.ask("POST", f"/users/{name}")[0] == 201
        assert hub.ask("POST", f"/users/{name}/server")[0] in (201, 202)

    def ready(name: str) -> bool:
        return bool(hub.ask("GET", f"/users/{name}")[1]["servers"].get("", {}).get("ready"))

    until(lambda: ready("ann") and ready("bob"), 60, 0.3)
    ann = fleet.inspect("jupyter-ann")
    assert list(ann["NetworkSettings"]["Networks"]) == ["class"]
    assert (ann["HostConfig"]["Memory"], ann["Config"]["Labels"]["class"]) == (64 << 20, "one")
    assert [mount["Name"] for mount in ann["Mounts"]] == ["home-ann"]
    assert (
        fleet.docker("exec", "jupyter-bob", "wget", "-qO-", "http://jupyter-ann:8888/").out == "up"
    )
    fleet.docker("exec", "jupyter-ann", "sh", "-c", "echo mine > /home/jovyan/work")

    # A server that dies is seen by the hub's next look.
    fleet.docker("kill", "jupyter-bob")
    until(lambda: hub.ask("POST", "/users/bob/server")[0] in (201, 202), 40, 0.5)
    until(lambda: ready("bob"), 60, 0.3)

    assert hub.ask("DELETE", "/users/ann/server")[0] in (202, 204)
    until(lambda: fleet.docker("ps", "-aq", "--filter", "name=jupyter-ann").out == "", 40)
    until(lambda: hub.ask("POST", "/users/ann/server")[0] in (201, 202), 40, 0.5)
    until(lambda: ready("ann"), 60, 0.3)
    assert fleet.docker("exec", "jupyter-ann", "cat", "/home/jovyan/work").out == "mine"
