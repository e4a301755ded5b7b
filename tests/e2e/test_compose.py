"""docker compose: five services over three hosts, from build to `down -v`."""

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.farm.environments import CLIENTS, python_environment
from tests.farm.fleet import Done, Fleet, until

pytestmark = pytest.mark.timeout(600)  # the first run fetches

Compose = Callable[..., Done]


@pytest.fixture
def compose(fleet: Fleet, tmp_path: Path) -> Iterator[Compose]:
    """`docker compose`, as a plugin of the docker command line, in a project directory."""
    plugins = fleet.config / "cli-plugins"
    plugins.mkdir(exist_ok=True)
    plugin = plugins / "docker-compose"
    plugin.unlink(missing_ok=True)
    plugin.symlink_to(python_environment(CLIENTS / "python.lock") / "bin" / "docker-compose")
    project = tmp_path / "shop"
    shutil.copytree(CLIENTS / "compose", project)
    # Compose asks the classic builder, which is the one that the engine has.
    env = {**fleet.env, "DOCKER_BUILDKIT": "0", "COMPOSE_PROGRESS": "plain"}

    def run(*words: str, code: int | None = 0, timeout_s: float = 120) -> Done:
        done = subprocess.run(
            ["docker", "compose", *words],
            cwd=project,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        found = Done.of(done)
        if code is not None:
            assert found.code == code, f"compose {' '.join(words)}: {found.out}\n{found.err}"
        return found

    yield run
    run("--profile", "*", "down", "-v", "-t", "0", "--remove-orphans", code=None)


def _fetch(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
        return answer.read().decode().strip()


def _running(compose: Compose, service: str) -> list[str]:
    words = ("--profile", "*", "ps", "--status", "running", "--format", "{{.Name}}", service)
    return sorted(compose(*words).out.split())


def test_a_project_of_five_services(fleet: Fleet, compose: Compose, tmp_path: Path) -> None:
    compose("up", "-d")
    # Each service starts when the one that it needs is healthy: the database's rows came through both.
    web = compose("port", "web", "80").out
    assert until(lambda: _fetch(web)) == "rows"
    names = fleet.docker("ps", "--format", "{{.Names}}").out.split()
    assert sorted(names) == [
        "shop-api-1",
        "shop-db-1",
        "shop-web-1",
        "shop-worker-1",
        "shop-worker-2",
    ]
    assert {fleet.host_of(name) for name in names} == {"host1", "host2", "host3"}
    assert "(healthy)" in fleet.docker("ps", "--filter", "name=db", "--format", "{{.Status}}").out

    # Networks: `back` has no way out, its names are not known in `front`.
    assert compose("exec", "-T", "api", "wget", "-qO-", "http://db:5432/").out == "rows"
    assert compose("exec", "-T", "web", "nslookup", "db", code=None).code != 0

    # Profiles and scale.
    assert _running(compose, "debug") == []
    compose("--profile", "tools", "up", "-d", "debug")
    assert _running(compose, "debug") == ["shop-debug-1"]
    compose("up", "-d", "--no-recreate", "--scale", "worker=4")
    assert len(_running(compose, "worker")) == 4
    compose("scale", "worker=1")
    assert len(_running(compose, "worker")) == 1

    # Files in and out, and a run of its own.
    (tmp_path / "note").write_text("text")
    compose("cp", str(tmp_path / "note"), "db:/data/note")
    compose("cp", "db:/data/note", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "text"
    assert compose("run", "--rm", "-T", "db", "cat", "/data/note").out.endswith("text")

    # Restart keeps what the volume has and what depends on it comes back.
    before = fleet.inspect("shop-db-1")["State"]["StartedAt"]
    compose("restart", "-t", "0", "db")
    assert fleet.inspect("shop-db-1")["State"]["StartedAt"] != before
    assert compose("exec", "-T", "db", "cat", "/data/note").out == "text"
    compose("pause", "worker")
    assert compose("ps", "--status", "paused", "--format", "{{.Name}}").out == "shop-worker-1"
    compose("unpause", "worker")
    assert "httpd" in compose("top", "web").out
    assert "busybox" in compose("images").out

    compose("--profile", "tools", "down", "-v", "-t", "0")
    assert fleet.docker("ps", "-aq").out == ""
    assert fleet.docker("volume", "ls", "-q").out == ""
    assert "shop" not in fleet.docker("network", "ls").out


def test_logs_follow_services_on_all_hosts(fleet: Fleet, compose: Compose, tmp_path: Path) -> None:
    compose("up", "-d", "--no-deps", "--scale", "worker=3", "worker")
    with subprocess.Popen(
        ["docker", "compose", "logs", "-f", "--no-color", "worker"],
        cwd=tmp_path / "shop", env=fleet.env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        stdout = client.stdout
        assert stdout is not None
        os.set_blocking(stdout.fileno(), False)
        seen: list[str] = []

        def ticks() -> bool:
            seen.append((stdout.read() or b"").decode())
            lines = "".join(seen).splitlines()
            return all(
                sum(line.startswith(f"worker-{number} ") and "tick" in line for line in lines) >= 2
                for number in (1, 2, 3)
            )

        try:
            until(ticks, 20, 0.2)
        finally:
            client.kill()


def test_a_service_is_built(fleet: Fleet, compose: Compose) -> None:
    compose("--profile", "built", "build", "site")
    assert compose("run", "--rm", "-T", "site").out.endswith("hello\na page")
    fleet.docker("rmi", "shop-site")  # compose knows only images with its label


def test_a_failing_health_check_stops_the_order(compose: Compose) -> None:
    done = compose("--profile", "broken", "up", "-d", "sick", code=None)
    assert done.code != 0
    assert "unhealthy" in done.err
    assert _running(compose, "sick") == []
