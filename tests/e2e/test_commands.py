"""The rest of the docker command line: what each command shows, and how it says no."""

import fcntl
import io
import json
import os
import pty
import select
import struct
import subprocess
import tarfile
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until


def _run(fleet: Fleet, name: str, *words: str) -> None:
    fleet.docker("run", "-d", "--name", name, "busybox", *(words or ("sleep", "600")))


# -- stats, limits


def test_stats_show_what_a_container_uses(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "busy", "--cpus", "0.5", "--memory", "64m", "busybox", "sh",
                 "-c", "while true; do true; done")  # fmt: skip

    def shown() -> dict:
        done = fleet.docker("stats", "--no-stream", "--format", "{{json .}}", "busy")
        return json.loads(done.out)

    def percent() -> float:
        return float(shown()["CPUPerc"].rstrip("%"))

    # At most its half core, with the slack of one period; more than nothing even on a busy machine.
    assert until(lambda: 2 < percent() < 65, 20, 0)
    row = shown()
    used, _, limit = row["MemUsage"].partition(" / ")
    assert limit == "64MiB"
    assert used.endswith(("KiB", "MiB"))
    assert 0 < float(row["MemPerc"].rstrip("%")) < 100
    assert row["PIDs"] == "1"


def test_a_fork_bomb_is_stopped_by_its_limit(fleet: Fleet) -> None:
    bomb = "i=0; while [ $i -lt 200 ]; do sleep 60 & i=$((i+1)); done; sleep 600"
    fleet.docker("run", "-d", "--name", "bomb", "--pids-limit", "30", "busybox", "sh", "-c", bomb)
    until(lambda: "can't fork" in fleet.docker("logs", "bomb").err)
    pids = fleet.docker("stats", "--no-stream", "--format", "{{.PIDs}}", "bomb").out
    assert int(pids) <= 30
    _run(fleet, "other")
    assert fleet.docker("exec", "other", "echo", "here").out == "here"
    fleet.docker("rm", "-f", "bomb")


def test_out_of_memory_is_told(fleet: Fleet) -> None:
    eat = "x=a; while true; do x=$x$x; done"
    done = fleet.docker("run", "--name", "eater", "--memory", "16m", "busybox", "sh", "-c", eat,
                        code=137)  # fmt: skip
    assert done.out == ""
    state = fleet.inspect("eater")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    assert "Exited (137)" in fleet.docker("ps", "-a", "--format", "{{.Status}}").out


# -- events


def test_events_are_replayed_with_their_facts(fleet: Fleet) -> None:
    since = f"{time.time() - 1:.0f}"
    fleet.docker("network", "create", "seen")
    fleet.docker("run", "--rm", "--name", "told", "--network", "seen", "busybox", "sh", "-c",
                 "exit 3", code=3)  # fmt: skip
    fleet.docker("network", "rm", "seen")

    def past(*filters: str) -> list[dict]:
        """`--until` has whole seconds."""
        words = [word for each in filters for word in ("--filter", each)]
        done = fleet.docker("events", "--since", since, "--until", "0s", *words, "--format",
                            "{{json .}}")  # fmt: skip
        return [json.loads(line) for line in done.out.splitlines()]

    until(lambda: any(each["Action"] == "destroy" for each in past("type=network")))
    life = past("container=told")
    actions = [each["Action"] for each in life]
    assert [each for each in actions if each in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip
    died = next(each for each in life if each["Action"] == "die")
    assert died["Actor"]["Attributes"]["exitCode"] == "3"
    assert died["Actor"]["Attributes"]["image"] == "busybox"
    assert died["from"] == "busybox"
    assert [each["Action"] for each in past("container=told", "event=die")] == ["die"]
    assert past("container=nobody") == []
    made = [each["Action"] for each in past("type=network")]
    assert [each for each in made if each in ("create", "destroy")] == ["create", "destroy"]


def test_events_come_live(fleet: Fleet) -> None:
    seen: list[str] = []
    with fleet.start("events", "--filter", "type=container", "--filter", "event=die", "--format",
                     "{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}") as client:  # fmt: skip
        stdout = client.stdout
        assert stdout is not None
        reader = threading.Thread(
            target=lambda: seen.extend(line.decode().strip() for line in stdout)
        )
        reader.start()

        def die() -> bool:
            """The command line says nothing when it has begun to listen."""
            fleet.docker("run", "--rm", "--name", "live", "busybox", "sh", "-c", "exit 4", code=4)
            return "live 4" in seen

        until(die)
        client.kill()
        reader.join()


# -- wait, top, logs


def test_wait_for_several(fleet: Fleet) -> None:
    for name, code in (("one", "3"), ("two", "5")):
        _run(fleet, name, "sh", "-c", f"while [ ! -e /go ]; do sleep 0.05; done; exit {code}")
    with fleet.start("wait", "one", "two") as waiting:
        for name in ("two", "one"):
            fleet.docker("exec", name, "touch", "/go")
        out, _ = waiting.communicate(timeout=20)
    assert out.decode().split() == ["3", "5"]
    assert fleet.docker("wait", "one", "two").out.split() == ["3", "5"]


def test_top_with_columns(fleet: Fleet) -> None:
    _run(fleet, "box")
    lines = fleet.docker("top", "box", "-eo", "pid,args").out.splitlines()
    assert lines[0].split() == ["PID", "COMMAND"]
    assert [line.split(None, 1)[1] for line in lines[1:]] == ["sleep 600"]
    assert lines[1].split()[0] == str(fleet.inspect("box")["State"]["Pid"])
    assert "not allowed" in fleet.docker("top", "box", "-o", "pid;id", code=1).err
    assert "PID" in fleet.docker("top", "box", "-eo", "args", code=1).err


def test_logs_since_and_until(fleet: Fleet) -> None:
    _run(fleet, "box", "sh", "-c", "echo old; while [ ! -e /go ]; do sleep 0.05; done; echo new")
    until(lambda: fleet.docker("logs", "box").out == "old")
    until(lambda: fleet.docker("logs", "--since", "1s", "box").out == "")
    fleet.docker("exec", "box", "touch", "/go")
    until(lambda: fleet.docker("logs", "--since", "1s", "box").out == "new")
    stamp = fleet.docker("logs", "-t", "box").out.splitlines()[1].split()[0]
    assert fleet.docker("logs", "--until", stamp, "box").out.splitlines()[0] == "old"


# -- cp


def _packed(**files: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return data.getvalue()


def test_cp_through_pipes_into_a_container_that_does_not_run(fleet: Fleet) -> None:
    fleet.docker("create", "--name", "cold", "busybox", "cat", "/root/a", "/root/b")
    fleet.docker("cp", "-", "cold:/root", stdin=_packed(a="one\n", b="two\n"))
    with tarfile.open(fileobj=io.BytesIO(fleet.docker("cp", "cold:/root", "-").raw)) as archive:
        assert sorted(archive.getnames()) == ["root", "root/a", "root/b"]
    assert fleet.docker("start", "-a", "cold").out == "one\ntwo"
    with tarfile.open(fileobj=io.BytesIO(fleet.docker("cp", "cold:/root/a", "-").raw)) as archive:
        assert archive.getnames() == ["a"]


def test_cp_of_links_and_folders(fleet: Fleet, tmp_path: Path) -> None:
    _run(fleet, "box", "sh", "-c", "mkdir /d; echo x > /d/f; ln -s f /d/l; ln -s /d /up; sleep 600")
    until(lambda: fleet.docker("exec", "box", "ls", "/up/l", code=None).code == 0)
    fleet.docker("cp", "box:/d", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "l").readlink() == Path("f")
    fleet.docker("cp", "box:/d/l", str(tmp_path / "link"))
    assert (tmp_path / "link").readlink() == Path("f")
    fleet.docker("cp", "-L", "box:/d/l", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "x\n"
    fleet.docker("cp", "box:/d/.", str(tmp_path))
    assert (tmp_path / "f").read_text() == "x\n"
    fleet.docker("cp", str(tmp_path / "copy"), "box:/up")
    assert fleet.docker("exec", "box", "cat", "/d/copy/l").out == "x"
    assert fleet.docker("cp", str(tmp_path / "f"), "box:/nosuch/f", code=1).err


# -- terminals


@contextmanager
def _terminal(fleet: Fleet, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The docker command line on a terminal of its own; yields its leader's descriptor."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # A session whose terminal this is: only so does a change of its size reach the client.
    client = subprocess.Popen(
        ["setsid", "--ctty", "--wait", "docker", *words],
        stdin=follower, stdout=follower, stderr=follower, env=fleet.env,
    )  # fmt: skip
    os.close(follower)
    try:
        yield client, leader
    finally:
        client.kill()
        client.wait()
        os.close(leader)


def _see(leader: int, wanted: bytes) -> None:
    """Read until something is shown."""
    assert _sees(leader, wanted, 20), wanted


def _sees(leader: int, wanted: bytes, limit_s: float) -> bool:
    """Read until something is shown, or not within the limit."""
    seen = b""
    end_s = time.monotonic() + limit_s
    while wanted not in seen:
        if time.monotonic() > end_s:
            return False
        if select.select([leader], [], [], 0.2)[0]:
            seen += os.read(leader, 65_536)
    return True


@pytest.mark.parametrize("words", [("run", "--rm", "-t", "busybox"), ("exec", "-t", "box")])
def test_a_program_on_a_terminal_begins_with_its_size(fleet: Fleet, words: tuple[str, ...]) -> None:
    fleet.docker("run", "-d", "--name", "box", "busybox", "sleep", "600")
    for _ in range(5):
        with _terminal(fleet, *words, "stty", "size") as (_, leader):
            _see(leader, b"24 80")


def _resized(leader: int) -> bool:
    """Change the size, and change it again to 33 x 111: each tells the client."""
    for columns in (110, 111):
        fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 33, columns, 0, 0))
    return True


def test_a_terminal_follows_the_size_of_its_window(fleet: Fleet) -> None:
    with _terminal(fleet, "run", "--rm", "-it", "busybox", "sh") as (client, leader):
        _see(leader, b"/ #")
        os.write(
            leader, b"while [ \"$(stty size)\" != '24 80' ]; do sleep 0.1; done; echo at$((1))\n"
        )
        _see(leader, b"at1")
        os.write(
            leader, b"while [ \"$(stty size)\" != '33 111' ]; do sleep 0.1; done; echo at$((2))\n"
        )
        # The client may not listen for changes yet: the window changes until it is seen.
        until(lambda: _resized(leader) and _sees(leader, b"at2", 1), 30)
        os.write(leader, b"exit 6\n")
        assert client.wait(20) == 6


def test_keys_detach_and_the_container_goes_on(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "-it", "--name", "tty", "busybox", "sh")
    with _terminal(fleet, "attach", "tty") as (client, leader):
        os.write(leader, b"echo got$((3))\n")
        _see(leader, b"got3")
        os.write(leader, b"\x10\x11")
        assert client.wait(20) in (0, 1)
    assert fleet.inspect("tty")["State"]["Running"]
    with _terminal(fleet, "attach", "--detach-keys", "ctrl-a,x", "tty") as (client, leader):
        os.write(leader, b"echo got$((4))\n")
        _see(leader, b"got4")
        os.write(leader, b"\x01x")
        assert client.wait(20) in (0, 1)
    assert fleet.inspect("tty")["State"]["Running"]
