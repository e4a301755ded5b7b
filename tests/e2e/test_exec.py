"""Execs: flags, codes, framing, terminals, what inspect shows, what is refused."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.raw_http import UPGRADE, Answer, asked


class Api:
    """The routes of execs on a plain socket."""

    def __init__(self, fleet: Fleet) -> None:
        self._socket = fleet.plan.socket

    def ask(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        with asked(self._socket, method, target, body) as answer:
            return answer.status, answer.body()

    def create(self, name: str, *argv: str, **fields: object) -> str:
        body = {"Cmd": argv, "AttachStdout": True, "AttachStderr": True} | fields
        status, answer = self.ask("POST", f"/containers/{name}/exec", body)
        assert status == 201, answer
        return answer["Id"]

    @contextlib.contextmanager
    def started(self, exec_id: str, version: str = "/v1.50", **body: object) -> Iterator[Answer]:
        target = f"{version}/exec/{exec_id}/start"
        with asked(self._socket, "POST", target, body, UPGRADE) as answer:
            yield answer

    def inspect(self, exec_id: str) -> dict[str, Any]:
        status, answer = self.ask("GET", f"/exec/{exec_id}/json")
        assert status == 200, answer
        return answer


@pytest.fixture
def box(fleet: Fleet) -> Fleet:
    """A fleet with a container named box."""
    fleet.docker("run", "-d", "--name", "box", "busybox", "sleep", "600")
    return fleet


@pytest.fixture
def api(box: Fleet) -> Api:
    return Api(box)


def test_the_flags_of_the_command_line(box: Fleet, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FROM_FILE=f\n#no\nHOST_ONLY\n")
    show = "echo $A $FROM_FILE; pwd; id -u; cat"
    done = box.docker("exec", "-i", "-e", "A=1", "--env-file", str(tmp_path / "env"), "-w", "/tmp",
                        "-u", "7", "box", "sh", "-c", show, stdin=b"typed")  # fmt: skip
    assert done.out.split() == ["1", "f", "/tmp", "7", "typed"]
    assert box.docker("exec", "-d", "box", "touch", "/flag").out == ""
    until(lambda: box.docker("exec", "box", "ls", "/flag", code=None).code == 0)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("sh", "-c", "exit 3"), 3, ""),
        (("sh", "-c", "exit 255"), 255, ""),
        (("sh", "-c", "kill -9 $$"), 137, ""),
        (("nosuch",), 127, 'exec: "nosuch": executable file not found in $PATH'),
        (("/bin/nosuch",), 127, 'exec: "/bin/nosuch": no such file or directory'),
        (("/etc/passwd",), 126, 'exec: "/etc/passwd": permission denied'),
        (("/etc",), 126, 'exec: "/etc": permission denied'),
    ],
)
def test_codes_and_words(box: Fleet, words: tuple[str, ...], code: int, said: str) -> None:
    done = box.docker("exec", "box", *words, code=code)
    assert said in done.out + done.err
    assert ("OCI runtime exec failed" in done.out + done.err) is bool(said)
    assert len((done.out + done.err).splitlines()) == bool(said)  # and not in crun's words, too


def test_a_command_that_cannot_run_on_a_terminal_says_so_once(api: Api) -> None:
    with api.started(api.create("box", "nosuch", Tty=True), Tty=True) as client:
        said = client.all().decode()
    assert said.startswith("OCI runtime exec failed")
    assert len(said.splitlines()) == 1


def test_what_a_program_says_of_files_that_there_are_not_is_its_own(box: Fleet) -> None:
    done = box.docker("exec", "box", "sh", "-c", "ls /nosuch; echo later >&2", code=0)
    assert done.err.splitlines() == ["ls: /nosuch: No such file or directory", "later"]


@pytest.mark.parametrize("user", ["0", "1000"])
def test_the_names_of_the_streams_lead_to_them(box: Fleet, user: str) -> None:
    script = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin"
    done = box.docker("exec", "-i", "-u", user, "box", "sh", "-c", script, stdin=b"in")
    assert (done.out, done.err) == ("out\nin", "err")


def test_an_exec_that_could_not_run_does_not_delay_the_containers_end(box: Fleet) -> None:
    for _ in range(3):
        box.docker("exec", "box", "nosuch", code=127)
    began_s = time.monotonic()
    box.docker("kill", "box")
    box.docker("wait", "box")
    assert time.monotonic() - began_s < 1.0


def test_a_user_or_directory_that_there_is_not(box: Fleet) -> None:
    assert "nosuch" in box.docker("exec", "-u", "nosuch", "box", "true", code=126).out
    assert box.docker("exec", "-w", "/nosuch", "box", "true", code=None).code in (126, 127)


def test_what_inspect_shows(fleet: Fleet, api: Api) -> None:
    exec_id = api.create("box", "sh", "-c", "read x; exit 4", AttachStdin=True, User="5",
                         DetachKeys="ctrl-a,b")  # fmt: skip
    before = api.inspect(exec_id)
    assert before == {
        "ID": exec_id, "Running": False, "ExitCode": None, "OpenStdin": True, "OpenStdout": True,
        "OpenStderr": True, "CanRemove": False, "DetachKeys": "AWI=", "Pid": 0,
        "ContainerID": fleet.inspect("box")["Id"],
        "ProcessConfig": {"tty": False, "entrypoint": "sh", "arguments": ["-c", "read x; exit 4"],
                          "privileged": False, "user": "5"},
    }  # fmt: skip
    with api.started(exec_id) as client:
        until(lambda: api.inspect(exec_id)["Pid"])
        running = api.inspect(exec_id)
        assert running["Running"]
        assert Path(f"/proc/{running['Pid']}/comm").read_text() == "sh\n"
        client.send(b"go\n")
        assert client.all() == b""
    after = api.inspect(exec_id)
    assert (after["Running"], after["ExitCode"]) == (False, 4)


def test_frames_and_heads(api: Api) -> None:
    script = "echo out; sleep 0.2; echo err >&2"
    with api.started(api.create("box", "sh", "-c", script)) as client:
        assert client.status == 101
        assert client.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
        assert [client.frame(), client.frame()] == [(1, b"out\n"), (2, b"err\n")]
        assert client.all() == b""
    with api.started(api.create("box", "echo", "old"), "/v1.41") as client:
        assert client.headers["content-type"] == "application/vnd.docker.raw-stream"
        assert client.frame() == (1, b"old\n")


def test_the_start_decides_the_framing_and_the_exec_its_terminal(api: Api) -> None:
    with api.started(api.create("box", "tty", Tty=True), Tty=False) as client:
        assert client.frame() == (1, b"/dev/pts/0\r\n")
    with api.started(api.create("box", "sh", "-c", "tty; echo e >&2"), Tty=True) as client:
        assert client.headers["content-type"] == "application/vnd.docker.raw-stream"
        assert client.all() == b"not a tty\n"


def test_a_terminal_has_its_size_from_the_start(api: Api) -> None:
    one = api.create("box", "stty", "size", Tty=True, ConsoleSize=[21, 77])
    with api.started(one, Tty=True) as client:
        assert client.all() == b"21 77\r\n"
    two = api.create("box", "stty", "size", Tty=True)
    with api.started(two, Tty=True, ConsoleSize=[22, 78]) as client:
        assert client.all() == b"22 78\r\n"
    three = api.create("box", "sh", Tty=True, AttachStdin=True)
    with api.started(three, Tty=True) as client:
        client.until(b"/ # ")
        assert api.ask("POST", f"/exec/{three}/resize?h=23&w=79")[0] == 200
        client.send(b"stty size\n")
        client.until(b"23 79")


def test_no_program_begins_before_its_terminal_has_its_size(api: Api) -> None:
    def size(_: int) -> bytes:
        one = api.create("box", "stty", "size", Tty=True)
        with api.started(one, Tty=True, ConsoleSize=[22, 78]) as client:
            return client.all()

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(size, range(80))) == {b"22 78\r\n"}


def test_keys_detach_from_an_exec_and_it_goes_on(api: Api) -> None:
    one = api.create("box", "sh", Tty=True, AttachStdin=True, DetachKeys="ctrl-a,d")
    with api.started(one, Tty=True) as client:
        client.until(b"/ # ")
        client.send(b"\x01d")
        client.all()
    assert api.inspect(one)["Running"]
    status, bad = api.ask("POST", "/containers/box/exec", {"Cmd": ["true"], "DetachKeys": "ctrl-1"})
    assert (status, bad) == (400, {"message": "Invalid detach keys (ctrl-1) provided"})


def test_a_command_outlives_its_client(fleet: Fleet, api: Api) -> None:
    """It writes more than any pipe holds: without a client its output is read away."""
    one = api.create("box", "sh", "-c", "seq 1 500000; touch /finished")
    with api.started(one) as client:
        client.frame()
    until(lambda: fleet.docker("exec", "box", "ls", "/finished", code=None).code == 0)
    assert api.inspect(one)["ExitCode"] == 0


def test_what_is_left_behind_in_an_exec_does_not_hold_it(box: Fleet) -> None:
    began_s = time.monotonic()
    assert box.docker("exec", "box", "sh", "-c", "sleep 60 & echo done").out == "done"
    assert time.monotonic() - began_s < 10


def test_what_is_refused(fleet: Fleet, api: Api) -> None:
    assert api.ask("POST", "/containers/box/exec", {})[0] == 400
    assert api.ask("POST", "/containers/nobody/exec", {"Cmd": ["true"]})[0] == 404
    unknown = "0" * 64
    for method, target in (("GET", "json"), ("POST", "start"), ("POST", "resize?h=1&w=1")):
        status, body = api.ask(
            method, f"/exec/{unknown}/{target}", {} if method == "POST" else None
        )
        assert (status, body["message"]) == (404, f"No such exec instance: {unknown}")
    done = api.create("box", "true")
    assert api.ask("POST", f"/exec/{done}/start", {"Detach": True})[0] == 200
    until(lambda: api.inspect(done)["ExitCode"] == 0)
    for detach in (True, False):
        status, body = api.ask("POST", f"/exec/{done}/start", {"Detach": detach})
        assert (status, body) == (409, {"message": f"error: exec command {done} has already run"})
    failing = api.create("box", "nosuch")
    status, body = api.ask("POST", f"/exec/{failing}/start", {"Detach": True})
    assert status == 400
    assert "executable file not found in $PATH" in json.dumps(body)
    assert api.inspect(failing)["ExitCode"] == 127
    late = api.create("box", "true")
    fleet.docker("kill", "box")
    fleet.docker("wait", "box")
    assert api.ask("POST", f"/exec/{late}/start", {})[0] == 409
    status, body = api.ask("POST", "/containers/box/exec", {"Cmd": ["true"]})
    assert status == 409
    assert "is not running" in body["message"]


def _rate(box: Fleet, *words: str, given: int | IO[bytes] = subprocess.DEVNULL) -> float:
    """MiB a second of a command that carries one GiB."""
    began_s = time.monotonic()
    subprocess.run(
        ["docker", "exec", *words], stdin=given, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=box.env, check=True,
    )  # fmt: skip
    return 1024 / (time.monotonic() - began_s)


@pytest.mark.long
def test_a_gigabyte_through_an_exec(box: Fleet) -> None:
    out = _rate(box, "box", "dd", "if=/dev/zero", "bs=1M", "count=1024")
    with subprocess.Popen(["head", "-c", "1G", "/dev/zero"], stdout=subprocess.PIPE) as source:
        assert source.stdout is not None
        into = _rate(box, "-i", "box", "dd", "of=/dev/null", "bs=1M", given=source.stdout)
    assert min(out, into) > 20, f"MiB/s out {out:.0f}, in {into:.0f}"
