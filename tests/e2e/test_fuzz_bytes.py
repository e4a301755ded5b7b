"""Bytes of all kinds where archives and streams are expected: every answer is in words, and nothing stays."""

import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.farm.fleet import Fleet, until, until_clean
from tests.farm.raw_http import UPGRADE, WEBSOCKET, asked
from tests.fuzz.tars import tars

HOST = "host1"
TAR = {"Content-Type": "application/x-tar"}
SERVER_ERROR = 500
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
_LONGEST_S = 30.0


def _settings(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def box(fleet: Fleet) -> Iterator[Fleet]:
    fleet.docker("run", "-d", "--name", "box", "--label", f"labfleet.constraint=host=={HOST}",
                 "busybox", "sleep", "6000")  # fmt: skip
    pids = _pids(fleet)
    yield fleet
    assert fleet.docker("exec", "box", "echo", "alive").out == "alive"
    assert _pids(fleet) == pids, "a service has ended meanwhile"
    until(lambda: not _left(fleet), 20)
    fleet.clean()
    fleet.docker("image", "prune", "-f")
    until_clean(fleet)


def _pids(fleet: Fleet) -> dict[str, int]:
    return {
        name: fleet.service_pid(name) for name in ("api", "image-store", f"runtime-agent-{HOST}")
    }


def _left(fleet: Fleet) -> list[Path]:
    """Files of uploads and builds that have not gone."""
    state = fleet.plan.state_dir
    places = [state / "hosts" / host.id / "builder" / "work" for host in fleet.plan.hosts]
    return [file for place in places if place.exists() for file in place.iterdir()]


def _send(fleet: Fleet, method: str, target: str, data: bytes) -> tuple[int, bytes]:
    begun = time.monotonic()
    link = http.client.HTTPConnection("docker", timeout=_LONGEST_S)
    with contextlib.closing(link), socket.socket(socket.AF_UNIX) as link.sock:
        link.sock.settimeout(_LONGEST_S)
        link.sock.connect(str(fleet.plan.socket))
        with contextlib.suppress(BrokenPipeError):  # it may be refused before it is whole
            link.request(method, target, data, TAR)
        answer = link.getresponse()
        found = answer.status, answer.read()
    assert time.monotonic() - begun < _LONGEST_S
    return found


def _fuzz_tars(fleet: Fleet, examples: int) -> None:
    places = (
        ("PUT", "/containers/box/archive?path=/tmp"),
        ("PUT", "/containers/box/archive?path=/tmp&copyUIDGID=1&noOverwriteDirNonDir=1"),
        ("POST", "/images/load?quiet=1"),
        ("POST", "/images/create?fromSrc=-&repo=fuzzed"),
        ("POST", "/build?q=1&networkmode=none"),
    )

    @_settings(examples)
    @given(st.sampled_from(places), tars())
    def run(place: tuple[str, str], data: bytes) -> None:
        status, said = _send(fleet, *place, data)
        assert status < SERVER_ERROR, said
        for line in said.splitlines():
            found = json.loads(line)
            assert "Traceback" not in str(found)
            assert "went away" not in str(found.get("error", ""))

    run()
    fleet.docker("rmi", "fuzzed", code=None)  # if an import was one
    fleet.docker("image", "prune", "-f")


def test_tars_of_all_kinds_are_taken_or_refused_in_words(box: Fleet) -> None:
    _fuzz_tars(box, 40)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_tars_of_all_kinds_are_taken_or_refused_in_words(box: Fleet) -> None:
    _fuzz_tars(box, 1500)


def _exec(fleet: Fleet, *argv: str, is_tty: bool = False) -> str:
    body = {
        "Cmd": argv,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": is_tty,
    }
    with asked(fleet.plan.socket, "POST", "/containers/box/exec", body) as answer:
        return str(answer.body()["Id"])


def _frames(data: bytes) -> tuple[bytes, bytes]:
    """Standard output and standard error of a whole multiplexed stream."""
    found = {1: b"", 2: b""}
    while data:
        kind, size = struct.unpack(">BxxxI", data[:8])
        assert len(data) >= 8 + size, "a frame is cut"
        found[kind] += data[8 : 8 + size]
        data = data[8 + size :]
    return found[1], found[2]


def _fuzz_streams(fleet: Fleet, examples: int) -> None:
    @_settings(examples)
    @given(st.lists(st.binary(min_size=1, max_size=70_000) | st.just(bytes(8)), max_size=6))
    def echoed(pieces: list[bytes]) -> None:
        """Whatever goes in comes out, framed, however it is cut."""
        exec_id = _exec(fleet, "sh", "-c", "tee /dev/stderr")
        target = f"/exec/{exec_id}/start"
        with asked(fleet.plan.socket, "POST", target, {}, UPGRADE) as answer:
            assert answer.status == 101
            for piece in pieces:
                answer.send(piece)
            answer.link.shutdown(1)
            whole = b"".join(pieces)
            assert _frames(answer.all()) == (whole, whole)

    @_settings(examples)
    @given(
        st.binary(max_size=300),
        st.sampled_from(["stdin=1&stream=1", "stream=1&stdout=1", "logs=1"]),
    )
    def scribbled(data: bytes, query: str) -> None:
        """Bytes that are no WebSocket frames end the stream, and nothing else."""
        target = f"/containers/box/attach/ws?{query}"
        with asked(fleet.plan.socket, "GET", target, headers=WEBSOCKET) as answer:
            assert answer.status == 101
            answer.send(data)
            answer.link.shutdown(1)
            answer.all()

    @_settings(examples)
    @given(
        st.binary(max_size=200),
        st.sampled_from(["POST /exec/x/start", "PUT /containers/box/archive", "GET /events"]),
    )
    def interrupted(data: bytes, line: str) -> None:
        """Requests whose head or body is anything at all are answered or let go of."""
        method, path = line.split()
        with asked(fleet.plan.socket, method, f"{path}?until=1", data) as answer:
            assert answer.status < SERVER_ERROR, answer.all()

    echoed()
    scribbled()
    interrupted()


def test_streams_carry_all_bytes_and_outlive_nonsense(box: Fleet) -> None:
    _fuzz_streams(box, 15)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_streams_carry_all_bytes_and_outlive_nonsense(box: Fleet) -> None:
    _fuzz_streams(box, 300)
