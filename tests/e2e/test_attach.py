"""Attaching: several clients, keys that detach, WebSocket, sizes of terminals."""

import contextlib
import json
import subprocess
import time

import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.raw_http import UPGRADE, WEBSOCKET, asked

ALL = "stream=1&stdin=1&stdout=1&stderr=1"


def _events(fleet: Fleet, since: float, name: str) -> list[str]:
    done = fleet.docker("events", "--since", f"{since:.0f}", "--until", "0s", "--filter",
                        f"container={name}", "--format", "{{.Action}}")  # fmt: skip
    return done.out.splitlines()


def test_every_client_sees_everything_and_may_type(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "-i", "--name", "box", "busybox", "cat")
    since = time.time() - 1
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(fleet.start("attach", "box", stdin=subprocess.PIPE))
            for _ in range(3)
        ]
        until(lambda: _events(fleet, since, "box").count("attach") == 3)
        for number, client in enumerate(clients):
            assert client.stdin is not None
            client.stdin.write(f"line {number}\n".encode())
            client.stdin.flush()
            for each in clients:
                assert each.stdout is not None
                assert each.stdout.readline() == f"line {number}\n".encode()
        clients[0].kill()
        stdin, stdout = clients[1].stdin, clients[2].stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(b"after\n")
        stdin.flush()
        assert stdout.readline() == b"after\n"
        fleet.docker("kill", "box")
        assert [client.wait(20) for client in clients[1:]] == [137, 137]


@pytest.mark.parametrize(
    ("asked_keys", "typed"), [("", b"\x10\x11"), ("ctrl-a,d", b"\x01d"), ("~", b"~")]
)
def test_keys_detach_from_a_terminal_and_it_lives_on(
    fleet: Fleet, asked_keys: str, typed: bytes
) -> None:
    container = fleet.docker("run", "-dit", "--name", "tty", "busybox", "sh").out
    since = time.time() - 1
    keys = f"&detachKeys={asked_keys}" if asked_keys else ""
    for number in (3, 4):  # who has left may come back
        with asked(fleet.plan.socket, "POST", f"/containers/tty/attach?{ALL}{keys}",
                   headers=UPGRADE) as client:  # fmt: skip
            assert client.status == 101
            assert client.headers["content-type"] == "application/vnd.docker.raw-stream"
            client.send(f"echo got$(({number}))\n".encode())
            client.until(f"got{number}".encode())
            client.send(typed)
            client.all()
    assert fleet.inspect("tty")["State"]["Running"]
    until(lambda: _events(fleet, since, container).count("detach") == 2)


def test_without_a_terminal_there_are_no_such_keys(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "-i", "--name", "box", "busybox", "cat")
    with asked(
        fleet.plan.socket, "POST", f"/containers/box/attach?{ALL}", headers=UPGRADE
    ) as client:
        assert client.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
        client.send(b"\x10\x11end\n")
        assert client.frame() == (1, b"\x10\x11end\n")


def test_keys_that_there_are_not_are_a_bad_request(fleet: Fleet) -> None:
    fleet.docker("create", "--name", "box", "busybox")
    with asked(fleet.plan.socket, "POST", f"/containers/box/attach?{ALL}&detachKeys=ctrl-1") as bad:
        assert (bad.status, bad.body()) == (
            400, {"message": "Invalid detach keys (ctrl-1) provided"},
        )  # fmt: skip
    with asked(fleet.plan.socket, "POST", f"/containers/nobody/attach?{ALL}") as unknown:
        assert unknown.status == 404


@pytest.mark.parametrize(
    ("version", "headers", "status", "kind"),
    [
        ("/v1.41", UPGRADE, 101, "application/vnd.docker.raw-stream"),
        ("/v1.42", UPGRADE, 101, "application/vnd.docker.multiplexed-stream"),
        ("/v1.50", {}, 200, "application/vnd.docker.raw-stream"),
    ],
)
def test_the_head_is_that_of_the_clients_version(
    fleet: Fleet, version: str, headers: dict[str, str], status: int, kind: str
) -> None:
    fleet.docker("run", "-d", "-i", "--name", "box", "busybox", "cat")
    target = f"{version}/containers/box/attach?{ALL}"
    with asked(fleet.plan.socket, "POST", target, headers=headers) as client:
        assert (client.status, client.headers["content-type"]) == (status, kind)
        client.send(b"x\n")
        assert client.frame() == (1, b"x\n")


def test_attach_by_websocket(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "-i", "--name", "box", "busybox", "sh", "-c",
                 "echo before; while read x; do echo out $x; echo err $x >&2; done")  # fmt: skip
    until(lambda: fleet.docker("logs", "box").out == "before")
    target = f"/v1.50/containers/box/attach/ws?logs=1&{ALL}"
    with asked(fleet.plan.socket, "GET", target, headers=WEBSOCKET) as client:
        assert client.status == 101
        assert client.message() == (2, b"before\n")
        client.say(1, b"one\n")
        got = b""
        while len(got) < len(b"out one\nerr one\n"):
            opcode, payload = client.message()
            assert opcode == 2
            got += payload
        assert sorted(got.split(b"\n")) == [b"", b"err one", b"out one"]
        client.say(9, b"there?")
        assert client.message() == (10, b"there?")
        fleet.docker("kill", "box")
        assert client.message() == (8, (1000).to_bytes(2, "big"))


def test_a_websocket_detaches_by_keys(fleet: Fleet) -> None:
    fleet.docker("run", "-dit", "--name", "tty", "busybox", "sh")
    target = f"/containers/tty/attach/ws?{ALL}&detachKeys=x"
    with asked(fleet.plan.socket, "GET", target, headers=WEBSOCKET) as client:
        client.say(2, b"x")
        while client.message()[0] != 8:
            pass
    assert fleet.inspect("tty")["State"]["Running"]
    with asked(fleet.plan.socket, "GET", target) as plain:
        assert plain.status == 400


def test_a_terminal_is_resized(fleet: Fleet) -> None:
    fleet.docker("run", "-dit", "--name", "tty", "busybox", "sh")
    with asked(fleet.plan.socket, "POST", "/containers/tty/resize?h=31&w=99") as answer:
        assert answer.status == 200
    until(lambda: "31 99" in fleet.docker("exec", "tty", "stty", "-F", "/dev/console", "size",
                                          code=None).out)  # fmt: skip
    with asked(fleet.plan.socket, "POST", "/containers/tty/resize?h=x&w=99") as bad:
        assert bad.status == 400
    fleet.docker("kill", "tty")
    fleet.docker("wait", "tty")
    with asked(fleet.plan.socket, "POST", "/containers/tty/resize?h=31&w=99") as stopped:
        assert stopped.status == 409
        assert "is not running" in json.dumps(stopped.body())
