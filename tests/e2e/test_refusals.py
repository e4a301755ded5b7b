"""Bad input: docker's status code, a sentence, and nothing half-made."""

import json
import socket

import pytest
from tests.farm.fleet import Fleet


def _ask(fleet: Fleet, method: str, path: str, body: bytes = b"") -> tuple[int, dict]:
    """One raw request."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(fleet.plan.socket))
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
        )
        client.sendall(head.encode() + body)
        answer = b""
        while data := client.recv(65_536):
            answer += data
    top, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" in top:
        rest = rest.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    return int(top.split()[1]), json.loads(rest) if rest.startswith(b"{") else {}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/containers/create", b"{", 400, "invalid JSON"),
        ("POST", "/containers/create", b'{"Image": 3}', 400, "Image"),
        ("POST", "/containers/create", b"{}", 400, "no image specified"),
        ("POST", "/containers/create", b'{"Image":"nosuch"}', 404, "No such image: nosuch:latest"),
        ("POST", "/containers/create", b'{"Image":"BAD"}', 400, "lowercase"),
        ("POST", "/containers/create?name=-bad", b'{"Image":"busybox"}', 400, "Invalid container"),
        ("POST", "/containers/create", b'{"Image":"busybox","HostConfig":{"Memory":-1}}', 400,
         "Memory"),
        ("POST", "/containers/create", b'{"Image":"busybox","HostConfig":{"Memory":1000}}', 400,
         "6MB"),
        ("POST", "/containers/create", b'{"Image":"busybox","HostConfig":{"NanoCpus":-5}}', 400,
         "NanoCpus"),
        ("POST", "/containers/create", b'{"Image":"busybox","Invented":true}', 501, "Invented"),
        ("POST", "/containers/create",
         b'{"Image":"busybox","HostConfig":{"NetworkMode":"nosuch"}}', 400, "network nosuch not found"),
        ("POST", "/containers/create",
         b'{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"often"}}}', 400, "'often'"),
        ("GET", "/containers/nosuch/json", b"", 404, "No such container: nosuch"),
        ("POST", "/containers/nosuch/start", b"", 404, "No such container"),
        ("GET", "/containers/json?filters={", b"", 400, "filters"),
        ("GET", "/containers/json?filters=%7B%22nosuch%22:[%22a%22]%7D", b"", 400, "nosuch"),
        ("POST", "/exec/" + "0" * 64 + "/start", b"{}", 404, "No such exec"),
        ("POST", "/containers/nosuch/pause", b"", 404, "No such container: nosuch"),
        ("POST", "/build", b"", 400, "Cannot locate specified Dockerfile"),
        ("GET", "/swarm", b"", 501, "no swarm mode"),
        ("GET", "/nosuch", b"", 404, "page not found"),
        ("GET", "/v1.99/info", b"", 400, "too new"),
        ("GET", "/v1.10/info", b"", 400, "too old"),
    ],
)  # fmt: skip
def test_refusal(
    fleet: Fleet, method: str, path: str, body: bytes, status: int, words: str
) -> None:
    found, answer = _ask(fleet, method, path, body)
    assert found == status, answer
    assert words in answer["message"]
    assert fleet.docker("ps", "-aq").out == ""


def test_a_body_that_is_too_large_is_refused(fleet: Fleet) -> None:
    body = b'{"Image":"' + b"a" * (5 << 20) + b'"}'
    try:
        status, _ = _ask(fleet, "POST", "/containers/create", body)
    except (BrokenPipeError, ConnectionResetError):
        return  # the server closed while we were still sending
    assert status == 413


def test_ambiguous_prefix_and_name_in_use(fleet: Fleet) -> None:
    ids = [fleet.docker("create", "busybox", "true").out for _ in range(17)]
    first = next(each[0] for each in ids if sum(other.startswith(each[0]) for other in ids) > 1)
    status, answer = _ask(fleet, "GET", f"/containers/{first}/json")
    assert status == 400
    assert "Multiple IDs" in answer["message"]
    fleet.docker("create", "--name", "taken", "busybox")
    done = fleet.docker("create", "--name", "taken", "busybox", code=1)
    assert 'The container name "/taken" is already in use' in done.err
    status, _ = _ask(fleet, "POST", "/containers/create?name=taken", b'{"Image":"busybox"}')
    assert status == 409


def test_a_full_fleet_refuses_with_reasons(fleet: Fleet) -> None:
    done = fleet.docker("run", "--memory", "900g", "busybox", "true", code=125)
    assert "no host fits: 3 hosts: too little memory" in done.err
    done = fleet.docker(
        "run", "--label", "labfleet.constraint=zone==x", "busybox", "true", code=125
    )
    assert "constraint zone==x" in done.err
    assert fleet.docker("ps", "-aq").out == ""


def test_a_command_that_cannot_run(fleet: Fleet) -> None:
    done = fleet.docker("run", "--rm", "busybox", "nosuch", code=127)
    assert "executable file not found" in done.err
    done = fleet.docker("run", "--rm", "busybox", "/etc/passwd", code=126)
    assert "permission denied" in done.err
    assert fleet.docker("ps", "-aq").out == ""


def test_start_and_stop_again_are_not_modified(fleet: Fleet) -> None:
    container = fleet.docker("run", "-d", "busybox", "sleep", "60").out
    assert _ask(fleet, "POST", f"/containers/{container}/start")[0] == 304
    fleet.docker("kill", container)
    fleet.docker("wait", container)
    assert _ask(fleet, "POST", f"/containers/{container}/stop")[0] == 304
    assert _ask(fleet, "POST", f"/containers/{container}/kill")[0] == 409
