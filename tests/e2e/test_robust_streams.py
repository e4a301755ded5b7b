"""Streams that are cut, refuse to move, or carry nonsense: nothing of them stays."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until, until_clean
from tests.farm.raw_http import UPGRADE, WEBSOCKET, asked

HOST = "host1"
SERVICES = ("api", f"runtime-agent-{HOST}")


def _descriptors(fleet: Fleet, name: str) -> int:
    return len(list(Path(f"/proc/{fleet.service_pid(name)}/fd").iterdir()))


def _children(fleet: Fleet, name: str) -> int:
    """Processes that a service has begun or adopted, dead ones too."""
    tasks = Path(f"/proc/{fleet.service_pid(name)}/task")
    return sum(len((each / "children").read_text().split()) for each in tasks.iterdir())


def _counts(fleet: Fleet) -> dict[str, int]:
    found = {f"fds of {name}": _descriptors(fleet, name) for name in SERVICES}
    return found | {f"children of {name}": _children(fleet, name) for name in SERVICES}


@pytest.fixture
def box(fleet: Fleet) -> Fleet:
    fleet.docker("run", "-dit", "--name", "box", "--label", f"labfleet.constraint=host=={HOST}",
                 "busybox", "sh")  # fmt: skip
    fleet.docker("exec", "box", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null")
    return fleet


def _exec(fleet: Fleet, *argv: str) -> str:
    body = {"Cmd": argv, "AttachStdout": True, "AttachStdin": True, "Tty": False}
    with asked(fleet.plan.socket, "POST", "/containers/box/exec", body) as answer:
        return answer.body()["Id"]


def _abort_exec(fleet: Fleet) -> None:
    """The command ends soon; its client is gone before."""
    exec_id = _exec(fleet, "sh", "-c", "echo begun; sleep 0.3; seq 1 30000")
    with asked(fleet.plan.socket, "POST", f"/exec/{exec_id}/start", {}, UPGRADE) as client:
        client.frame()


def _abort_attach(fleet: Fleet) -> None:
    target = "/containers/box/attach?stream=1&stdin=1&stdout=1&logs=1"
    with asked(fleet.plan.socket, "POST", target, headers=UPGRADE) as client:
        client.send(b"echo x\n")


def _abort_websocket(fleet: Fleet) -> None:
    target = "/containers/box/attach/ws?stream=1&stdin=1&stdout=1"
    with asked(fleet.plan.socket, "GET", target, headers=WEBSOCKET) as client:
        client.say(2, b"echo y\n")


def _abort_logs(fleet: Fleet) -> None:
    with asked(fleet.plan.socket, "GET", "/containers/box/logs?follow=1&stdout=1") as client:
        assert client.status == 200


def _abort_download(fleet: Fleet) -> None:
    with asked(fleet.plan.socket, "GET", "/containers/box/archive?path=/big") as client:
        client.read(100)


def _abort_export(fleet: Fleet) -> None:
    with asked(fleet.plan.socket, "GET", "/containers/box/export") as client:
        client.read(100)


def _abort_upload(fleet: Fleet) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(fleet.plan.socket))
        link.sendall(
            b"PUT /containers/box/archive?path=/tmp HTTP/1.1\r\nHost: d\r\nContent-Length: 9000000\r\n\r\n"
            + bytes(5000)
        )


ABORTS: tuple[Callable[[Fleet], None], ...] = (
    _abort_exec, _abort_attach, _abort_websocket, _abort_logs, _abort_download, _abort_export,
    _abort_upload,
)  # fmt: skip


def _lives(fleet: Fleet) -> dict[str, int]:
    """The processes that serve, and how many errors they have written down."""
    errors = sum(fleet.log_of(name).count('"level": "error"') for name in SERVICES)
    return {name: fleet.service_pid(name) for name in SERVICES} | {"errors": errors}


def _abort_many(fleet: Fleet, each: int) -> None:
    """So many of every kind, four at a time."""
    work = [abort for abort in ABORTS for _ in range(each)]
    failures: list[BaseException] = []

    def run() -> None:
        while work and not failures:
            try:
                work.pop()(fleet)
            except (AssertionError, OSError, LookupError) as exc:
                failures.append(exc)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def _check_nothing_stays(fleet: Fleet, each: int) -> None:
    _abort_many(fleet, 1)  # what is made once, such as connections to the bus, is there now
    until(lambda: _counts(fleet)[f"children of runtime-agent-{HOST}"] <= 2, 30)
    before, lives = _counts(fleet), _lives(fleet)
    _abort_many(fleet, each)
    slack = 4
    until(
        lambda: all(count <= before[name] + slack for name, count in _counts(fleet).items()),
        150,  # children that were begun for nobody still have to start before they see that
        0.2,
    )
    assert _lives(fleet) == lives
    assert fleet.docker("exec", "box", "echo", "alive").out == "alive"
    assert [line.split()[-1] for line in fleet.docker("top", "box", "-eo", "pid,args").out.splitlines()] == [
        "COMMAND", "sh",
    ]  # fmt: skip


def test_aborted_streams_leave_nothing(box: Fleet) -> None:
    _check_nothing_stays(box, each=6)  # more than the slack: one of each kind is noticed


@pytest.mark.long
def test_two_hundred_aborted_streams_leave_nothing(box: Fleet) -> None:
    _check_nothing_stays(box, each=30)


def test_nonsense_on_streams_is_an_answer(box: Fleet) -> None:
    path = box.plan.socket
    for body in (b"{", b"[]", b'{"Cmd": 5}', b'{"Cmd": ["a"], "Env": {}}', os.urandom(200)):
        with asked(path, "POST", "/containers/box/exec", body) as answer:
            assert answer.status == 400, body
    with asked(path, "POST", "/containers/box/exec", b" " * (5 << 20)) as answer:
        assert answer.status == 413
    with asked(
        path, "GET", "/containers/box/attach/ws?stream=1&stdin=1", headers=WEBSOCKET
    ) as client:
        client.send(b"\xff" * 100)
        opcode, payload = client.message()
        assert (opcode, payload) == (8, (1002).to_bytes(2, "big"))
    for query in ("since=x&stdout=1", "until=-&stdout=1"):
        with asked(path, "GET", f"/containers/box/logs?{query}") as answer:
            assert answer.status == 400, query


def test_a_client_that_does_not_read_is_waited_for_without_memory(box: Fleet) -> None:
    exec_id = _exec(box, "dd", "if=/dev/zero", "bs=1M", "count=400")
    with asked(box.plan.socket, "POST", f"/exec/{exec_id}/start", {}, UPGRADE) as client:
        client.frame()
        for name in SERVICES:
            status = Path(f"/proc/{box.service_pid(name)}/status").read_text()
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            assert int(resident.split()[1]) < 200_000


@pytest.mark.parametrize("service", ["api", "runtime-agent-host1"])
def test_a_commit_whose_service_is_killed_lets_its_container_go_on(
    fleet: Fleet, service: str
) -> None:
    # Bytes that are no hole and do not compress: it stands still for seconds.
    fill = "dd if=/dev/urandom of=/big bs=1M count=150 2>/dev/null"
    script = f"{fill}; while :; do echo tick; sleep 0.1; done"
    fleet.docker("run", "-d", "--name", "busy", "--label", "labfleet.constraint=host==host1",
                 "busybox", "sh", "-c", script)  # fmt: skip
    until(lambda: fleet.docker("logs", "busy").out)
    with fleet.start("commit", "busy", "never"):
        until(lambda: fleet.inspect("busy")["State"]["Paused"], every_s=0.01)
        old = fleet.kill_service(service)
    until(lambda: fleet.service_pid(service) not in (0, old))
    fleet.wait_ready()
    until(lambda: not fleet.inspect("busy")["State"]["Paused"])
    assert fleet.docker("exec", "busy", "echo", "goes on").out == "goes on"
    until_clean(fleet)
