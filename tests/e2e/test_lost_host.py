"""A host is cut off, or its agent hangs: its containers run on, and nobody waits for it."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from tests.farm.fleet import Fleet, until, until_clean

COUNT = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done"
LEASE_S = 15
QUICK_S = 5


@contextlib.contextmanager
def _cut_off(fleet: Fleet, host: str) -> Iterator[None]:
    """Take down the machine's end of a host's cable until the end of the block."""
    link = next(each.link for each in fleet.plan.hosts if each.id == host)
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "set", link, "up"], check=True)


@contextlib.contextmanager
def _quickly() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < QUICK_S


def _on(host: str) -> tuple[str, str]:
    return "--label", f"labfleet.constraint=host=={host}"


def _shown(fleet: Fleet, name: str) -> str:
    """The column STATUS of one container."""
    return fleet.docker("ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.Status}}").out


def _facts(fleet: Fleet, name: str) -> tuple[int, str]:
    state = fleet.inspect(name)["State"]
    return state["Pid"], state["StartedAt"]


def _refusal(fleet: Fleet, path: str, body: object = None) -> tuple[int, str]:
    """Status and message of a raw POST."""
    transport = httpx.HTTPTransport(uds=str(fleet.plan.socket))
    with httpx.Client(transport=transport, base_url="http://docker", timeout=30) as client:
        answer = client.post(path, json=body)
    return answer.status_code, answer.json()["message"]


def _is_alive(fleet: Fleet, host: str) -> bool:
    return f"{host}: alive" in fleet.docker("info").out


def test_a_host_is_cut_off_and_comes_back(fleet: Fleet) -> None:
    for name in ("keep", "gone"):
        fleet.docker("run", "-d", "--name", name, *_on("host2"), "busybox", "sh", "-c", COUNT)
    fleet.docker("create", "--name", "cold", *_on("host2"), "busybox", "sleep", "600")
    before = {name: _facts(fleet, name) for name in ("keep", "gone")}
    with _cut_off(fleet, "host2"):
        until(lambda: _shown(fleet, "keep").endswith("(host host2 is lost)"), LEASE_S + 10)
        assert _shown(fleet, "keep").startswith("Up ")
        _check_that_nobody_waits(fleet)
        for number in range(4):
            fleet.docker("run", "-d", "--name", f"new{number}", "busybox", "sleep", "600")
            assert fleet.host_of(f"new{number}") != "host2"
        done = fleet.docker("run", "-d", *_on("host2"), "busybox", "true", code=125)
        assert "1 host: lost" in done.err
        with _quickly():
            fleet.docker("rm", "-f", "gone")
        assert all(Path(f"/proc/{pid}").exists() for pid, _ in before.values())
    until(lambda: "lost" not in _shown(fleet, "keep"), 30)
    until(lambda: _shown(fleet, "gone") == "", 20)
    assert not Path(f"/proc/{before['gone'][0]}").exists()
    assert _facts(fleet, "keep") == before["keep"]
    lines = fleet.docker("logs", "keep").out.splitlines()
    assert [int(line) for line in lines] == list(range(len(lines)))
    assert fleet.docker("exec", "keep", "echo", "here").out == "here"
    until_clean(fleet)


def _check_that_nobody_waits(fleet: Fleet) -> None:
    """Whatever needs the host answers at once, with 503 and a sentence that names it."""
    for words in (
        ("exec", "keep", "true"),
        ("start", "cold"),
        ("logs", "keep"),
        ("top", "keep"),
        ("cp", "keep:/etc/passwd", "-"),
        ("stats", "--no-stream", "keep"),
        ("kill", "keep"),
    ):
        with _quickly():
            done = fleet.docker(*words, code=None)
        assert done.code != 0, words
        assert "host host2 does not answer" in done.err, words
    for path, body in (
        ("/containers/cold/start", None),
        ("/containers/keep/exec", {"Cmd": ["true"]}),
    ):
        status, message = _refusal(fleet, path, body)
        assert status == 503
        assert "host2" in message


def test_a_host_whose_agent_hangs_is_not_chosen(fleet: Fleet) -> None:
    with fleet.freeze_service("runtime-agent-host3"):
        for number in range(3):
            fleet.docker("run", "-d", "--name", f"early{number}", "busybox", "sleep", "600")
            assert fleet.host_of(f"early{number}") != "host3"
        until(lambda: not _is_alive(fleet, "host3"), LEASE_S + 10)
        for number in range(3):
            with _quickly():
                fleet.docker("run", "-d", "--name", f"late{number}", "busybox", "sleep", "600")
            assert fleet.host_of(f"late{number}") != "host3"
        reason = json.loads(fleet.docker("inspect", "late0").out)[0]["Node"]["Reason"]
        assert "host3: lost" in reason
    until(lambda: _is_alive(fleet, "host3"))
    fleet.docker("run", "--rm", *_on("host3"), "busybox", "true")
    until_clean(fleet)
