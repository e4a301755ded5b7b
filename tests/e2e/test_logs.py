"""Logs: what is shown, what is kept, and that a follower misses nothing and sees nothing twice."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.raw_http import asked

# Numbers at a steady rate: `ticks` times `each` lines, twenty ticks a second.
STEADY = "t=0; while [ $t -lt {ticks} ]; do seq $((t*{each})) $((t*{each}+{each}-1)); usleep 42000; t=$((t+1)); done"


class Follower:
    """`docker logs -f` in the background, and the lines that it has shown."""

    def __init__(self, client: "subprocess.Popen[bytes]") -> None:
        self.client = client
        self.lines: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.client.stdout is not None
        self.lines.extend(iter(self.client.stdout.readline, b""))

    def end(self, timeout_s: float) -> list[bytes]:
        """Wait for the client's end; return all lines."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"still follows after {len(self.lines)} lines"
        return self.lines


@contextmanager
def following(fleet: Fleet, *words: str) -> Iterator[Follower]:
    with fleet.start("logs", "-f", *words) as client:
        yield Follower(client)


def _run(fleet: Fleet, *words: str, host: str = "host1") -> None:
    fleet.docker(
        "run", "-d", "--name", "box", "--label", f"labfleet.constraint=host=={host}", *words
    )


def test_what_is_asked_for_is_shown(fleet: Fleet) -> None:
    fleet.docker("run", "--name", "box", "--label", "team=a b", "-e", "STAGE=1",
                 "--log-opt", "labels=team", "--log-opt", "env=STAGE", "busybox", "sh", "-c",
                 "echo one; sleep 0.3; echo two; echo err >&2")  # fmt: skip
    assert fleet.docker("logs", "box").out.split() == ["one", "two"]
    assert fleet.docker("logs", "box").err == "err"
    assert fleet.docker("logs", "--tail", "2", "box").out == "two"
    assert fleet.docker("logs", "--tail", "0", "box").out == ""
    assert fleet.docker("logs", "--tail", "nonsense", "box").out.split() == ["one", "two"]
    details = fleet.docker("logs", "--details", "-t", "box").out.splitlines()
    stamp, named, text = details[0].split()
    assert (named, text) == ("STAGE=1,team=a+b", "one")
    later = fleet.docker("logs", "-t", "box").out.splitlines()[1].split()[0]
    assert fleet.docker("logs", "--since", later, "box").out == "two"
    assert fleet.docker("logs", "--until", stamp, "box").out == "one"
    assert fleet.docker("logs", "-f", "box").out.split() == ["one", "two"]
    with asked(fleet.plan.socket, "GET", "/containers/box/logs") as neither:
        assert neither.status == 400


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_log_is_turned_and_only_so_much_is_kept(fleet: Fleet, driver: str) -> None:
    _run(fleet, "--log-driver", driver, "--log-opt", "max-size=20k", "--log-opt", "max-file=3", "busybox",
         "sh", "-c", STEADY.format(ticks=40, each=100) + "; sleep 600")  # fmt: skip
    with following(fleet, "box") as follower:
        until(lambda: b"3999\n" in follower.lines[-1:])
        assert follower.lines == [f"{number}\n".encode() for number in range(4000)]
    until(lambda: len(fleet.docker("logs", "box").out.splitlines()) < 2500)
    kept = fleet.docker("logs", "box").out.splitlines()
    assert kept == [str(number) for number in range(4000 - len(kept), 4000)]
    assert len(kept) > 300
    assert fleet.docker("logs", "--tail", "400", "box").out.splitlines() == kept[-400:]
    assert fleet.inspect("box")["HostConfig"]["LogConfig"] == {
        "Type": driver, "Config": {"max-size": "20k", "max-file": "3"},
    }  # fmt: skip


def test_a_container_without_a_log(fleet: Fleet) -> None:
    done = fleet.docker("run", "--name", "box", "--log-driver", "none", "busybox", "echo", "seen")
    assert done.out == "seen"
    said = fleet.docker("logs", "box", code=1).err
    assert "configured logging driver does not support reading" in said
    assert (
        "no log driver named 'asdf'"
        in fleet.docker("create", "--log-driver", "asdf", "busybox", code=1).err
    )


def _check(lines: list[bytes], count: int) -> None:
    """Every number once, in order."""
    wanted = [f"{number}\n".encode() for number in range(count)]
    if lines != wanted:
        first = next(
            i for i, pair in enumerate(zip(lines, wanted, strict=False)) if pair[0] != pair[1]
        )
        raise AssertionError(
            f"{len(lines)} of {count} lines; at {first}: {lines[first : first + 3]}"
        )


def _follow_through_kills(fleet: Fleet, ticks: int, each: int) -> float:
    """Kill the agent twice while numbered lines come; return lines per second."""
    _run(fleet, "busybox", "sh", "-c", STEADY.format(ticks=ticks, each=each))
    began_s = time.monotonic()
    with following(fleet, "box") as follower:
        for share in (0.15, 0.5):
            until(lambda share=share: len(follower.lines) > ticks * each * share, 60)
            fleet.kill_service("runtime-agent-host1")
        lines = follower.end(120)
    _check(lines, ticks * each)
    assert fleet.docker("wait", "box").out == "0"
    return len(lines) / (time.monotonic() - began_s)


def test_a_follower_outlives_the_agent(fleet: Fleet) -> None:
    """Killed twice: no line lost, none twice."""
    _follow_through_kills(fleet, ticks=60, each=200)


@pytest.mark.long
def test_a_follower_outlives_the_agent_at_50000_lines_a_second(fleet: Fleet) -> None:
    rate = _follow_through_kills(fleet, ticks=200, each=2500)
    assert rate > 15_000, rate


def _come_back(fleet: Fleet, ticks: int, each: int) -> None:
    """Kill the api while lines come: the client that comes back with the last time misses nothing."""
    _run(fleet, "busybox", "sh", "-c", STEADY.format(ticks=ticks, each=each))
    with following(fleet, "-t", "box") as follower:
        until(lambda: len(follower.lines) > ticks * each * 0.2, 60)
        fleet.kill_service("api")
        before = [line for line in follower.end(30) if line.endswith(b"\n")]
    last = before[-1].split()[0].decode()
    fleet.wait_ready()
    with following(fleet, "-t", "--since", last, "box") as again:
        after = again.end(120)
    known = set(before[-20_000:])  # lines of one write have one time
    _check(
        [line.split()[1] + b"\n" for line in before + [x for x in after if x not in known]],
        ticks * each,
    )


def test_who_comes_back_after_the_api_died_misses_nothing(fleet: Fleet) -> None:
    _come_back(fleet, ticks=60, each=200)


@pytest.mark.long
def test_who_comes_back_misses_nothing_at_50000_lines_a_second(fleet: Fleet) -> None:
    _come_back(fleet, ticks=200, each=2500)


def test_a_client_that_reads_nothing_holds_nothing_up(fleet: Fleet) -> None:
    """What a slow reader has not taken waits in bounded buffers, and in the log."""
    _run(fleet, "busybox", "sh", "-c", "seq 1 400000; sleep 600")
    with fleet.start("logs", "-f", "box") as client:
        os.kill(client.pid, signal.SIGSTOP)
        until(lambda: fleet.docker("logs", "--tail", "1", "box").out == "400000")
        for name in ("api", "runtime-agent-host1"):
            status = Path(f"/proc/{fleet.service_pid(name)}/status").read_text()
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            assert int(resident.split()[1]) < 250_000
        os.kill(client.pid, signal.SIGCONT)
        follower = Follower(client)
        until(lambda: len(follower.lines) == 400_000)
