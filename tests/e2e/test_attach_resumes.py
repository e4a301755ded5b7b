"""Who is attached to a container stays so when its host's agent is killed: nothing twice, nothing missing."""

import contextlib
import os
import pty
import select
import subprocess
import time

import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.raw_http import UPGRADE, asked

AGENT = "runtime-agent-host1"
ON_HOST1 = ("--label", "labfleet.constraint=host==host1")
LINES = 4000
COUNT = (
    f"i=0; while [ $i -lt {LINES} ]; do echo line $i of the output; i=$((i+1)); "
    "[ $((i%40)) = 0 ] && sleep 0.1; done"
)


def _kill_agent(fleet: Fleet) -> None:
    old = fleet.kill_service(AGENT)
    until(lambda: fleet.service_pid(AGENT) not in (0, old))


def _expected() -> list[str]:
    return [f"line {number} of the output" for number in range(LINES)]


def test_the_output_of_a_run_goes_on_after_two_kills(fleet: Fleet) -> None:
    script = f"{COUNT}; printf 'no end'; exit 7"
    with fleet.start("run", "--name", "box", *ON_HOST1, "busybox", "sh", "-c", script) as client:
        until(lambda: fleet.docker("logs", "box", code=None).out.count("line") > 300, 30)
        _kill_agent(fleet)
        fleet.wait_ready()
        time.sleep(1)
        _kill_agent(fleet)
        out, _ = client.communicate(timeout=60)
    *lines, last = out.decode().split("\n")
    assert lines == _expected()
    assert last == "no end"
    assert client.returncode == 7


@pytest.mark.parametrize("is_back", [False, True], ids=["started-at-once", "started-later"])
def test_who_attached_before_the_start_hears_all(fleet: Fleet, *, is_back: bool) -> None:
    fleet.docker("create", "--name", "box", *ON_HOST1, "busybox", "echo", "hello")
    fleet.docker("start", "-a", "box")
    target = "/containers/box/attach?stream=1&stdout=1&stderr=1"
    with asked(fleet.plan.socket, "POST", target, headers=UPGRADE) as output:
        assert output.status == 101
        _kill_agent(fleet)
        if is_back:
            fleet.wait_ready()
        fleet.docker("start", "box")
        assert output.all() == b"\1\0\0\0\0\0\0\6hello\n"


def test_several_who_attached_later_go_on(fleet: Fleet) -> None:
    """Both streams; they came while nothing was said."""
    script = f"while [ ! -e /go ]; do sleep 0.1; done; {COUNT}; echo problem >&2"
    fleet.docker("run", "-d", "--name", "box", *ON_HOST1, "busybox", "sh", "-c", script)
    with (
        fleet.start("attach", "--no-stdin", "box") as one,
        fleet.start("attach", "--no-stdin", "box") as two,
    ):
        time.sleep(1.5)  # attached, and silent for so long that the host has told where
        fleet.docker("exec", "box", "touch", "/go")
        until(lambda: fleet.docker("logs", "box").out.count("line") > 600, 30)
        _kill_agent(fleet)
        for each in (one, two):
            out, err = each.communicate(timeout=60)
            assert out.decode().splitlines() == _expected()
            assert err.decode().splitlines() == ["problem"]


def test_keys_are_typed_on_after_a_kill(fleet: Fleet) -> None:
    """A container that keeps its input open takes what is typed later, in its order."""
    script = "stty -echo; while read word; do echo got $word; [ $word = last ] && exit 3; done"
    master, slave = pty.openpty()
    with subprocess.Popen(
        ["docker", "run", "-it", "--name", "box", *ON_HOST1, "busybox", "sh", "-c", script],
        stdin=slave, stdout=slave, stderr=slave, env=fleet.env,
    ) as client:  # fmt: skip
        os.close(slave)
        seen = b""

        def shown(word: bytes) -> bool:
            nonlocal seen
            while select.select([master], [], [], 0)[0]:
                with contextlib.suppress(OSError):
                    seen += os.read(master, 4096)
                    continue
                break
            return word in seen

        until(lambda: fleet.docker("ps", "-q").out)
        time.sleep(1)
        os.write(master, b"one\n")
        until(lambda: shown(b"got one"))
        _kill_agent(fleet)
        os.write(master, b"two\nlast\n")  # kept until the host is back
        assert client.wait(30) == 3
        shown(b"")
        os.close(master)
    assert seen.split() == [b"got", b"one", b"got", b"two", b"got", b"last"]
