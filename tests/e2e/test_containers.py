"""The docker command line against a fleet of three virtual hosts: the life of containers."""

import os
import pty
import re
import select
import subprocess
import threading
import time
from pathlib import Path

from tests.farm.fleet import Fleet, until


def test_version_and_info_name_the_fleet(fleet: Fleet) -> None:
    version = fleet.docker("version").out
    assert "Labfleet" in version
    assert "1.50" in version
    info = fleet.docker("info").out
    assert "Hosts: 3" in info
    assert "host3: alive" in info


def test_run_prints_both_streams_and_hands_on_the_exit_code(fleet: Fleet) -> None:
    done = fleet.docker(
        "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", code=7
    )
    assert (done.out, done.err) == ("out", "err")
    assert fleet.docker("ps", "-aq").out == ""


def test_run_with_environment_directory_user_entrypoint(fleet: Fleet) -> None:
    out = fleet.docker(
        "run", "--rm", "-e", "A=b c", "-w", "/var/tmp", "-u", "1000:1001", "--entrypoint", "sh",
        "busybox", "-c", 'echo "$A $(pwd) $(id -u) $(id -g) $HOME"',
    ).out  # fmt: skip
    assert out == "b c /var/tmp 1000 1001 /"


def test_stdin_reaches_the_container_and_ends(fleet: Fleet) -> None:
    assert fleet.docker("run", "--rm", "-i", "busybox", "wc", "-c", stdin=b"x" * 70_000).out == (
        "70000"
    )


def test_life_of_a_detached_container(fleet: Fleet) -> None:
    container = fleet.docker("run", "-d", "--name", "web", "--label", "k=v", "busybox", "sleep",
                             "600").out  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{64}", container)
    assert fleet.docker("ps", "--format", "{{.Names}} {{.Image}}").out == "web busybox"
    assert fleet.docker("ps", "-q", "--filter", "label=k=v").out == container[:12]
    assert fleet.docker("ps", "-q", "--filter", "label=k=w").out == ""
    about = fleet.inspect("web")
    assert about["State"]["Running"]
    assert about["HostConfig"]["Memory"] == 512 << 20
    assert about["HostConfig"]["PidsLimit"] == 512
    assert "sleep 600" in fleet.docker("top", "web").out
    fleet.docker("stop", "-t", "0", "web")
    assert fleet.inspect("web")["State"]["ExitCode"] == 137
    fleet.docker("start", "web")
    assert fleet.inspect("web")["State"]["Running"]
    fleet.docker("restart", "-t", "0", "web")
    assert fleet.inspect("web")["State"]["Running"]
    fleet.docker("kill", "-s", "KILL", "web")
    assert fleet.docker("wait", "web").out == "137"
    fleet.docker("rm", "web")
    assert fleet.docker("ps", "-aq").out == ""


def test_files_stay_over_a_restart(fleet: Fleet) -> None:
    fleet.docker("run", "--name", "keep", "busybox", "sh", "-c", "date > /stamp")
    first = fleet.docker("cp", "keep:/stamp", "-").raw
    fleet.docker("start", "-a", "keep")
    second = fleet.docker("cp", "keep:/stamp", "-").raw
    assert first
    assert second


def test_exec(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "ex", "busybox", "sleep", "600")
    assert fleet.docker("exec", "ex", "sh", "-c", "echo a; exit 3", code=3).out == "a"
    assert fleet.docker("exec", "-i", "ex", "cat", stdin=b"abc").out == "abc"
    out = fleet.docker("exec", "-e", "X=1", "-w", "/tmp", "-u", "5", "ex", "sh", "-c",
                       "echo $X $(pwd) $(id -u)").out  # fmt: skip
    assert out == "1 /tmp 5"
    fleet.docker("exec", "-d", "ex", "sh", "-c", "echo done > /tmp/flag")
    until(lambda: fleet.docker("exec", "ex", "cat", "/tmp/flag", code=None).out == "done")
    assert fleet.docker("exec", "ex", "nosuch", code=None).code in (126, 127)
    fleet.docker("stop", "-t", "0", "ex")
    assert "is not running" in fleet.docker("exec", "ex", "true", code=1).err


def test_a_hundred_megabytes_through_exec_come_back_unchanged(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "pipe", "busybox", "sleep", "600")
    data = os.urandom(1 << 20) * 100
    assert fleet.docker("exec", "-i", "pipe", "cat", stdin=data, timeout_s=120).raw == data


def test_half_close_lets_the_rest_of_the_output_through(fleet: Fleet) -> None:
    out = fleet.docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat; sleep 0.5; echo late",
                       stdin=b"early\n").out  # fmt: skip
    assert out == "early\nlate"


def test_terminal(fleet: Fleet) -> None:
    """`-it` with a real terminal: echo, size, exit code."""
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        ["docker", "run", "--rm", "-it", "busybox", "sh"],
        stdin=follower, stdout=follower, stderr=follower, env=fleet.env, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    seen = b""

    def see(wanted: bytes) -> None:
        nonlocal seen
        end_s = time.monotonic() + 20
        while wanted not in seen:
            assert time.monotonic() < end_s, seen
            if select.select([leader], [], [], 0.2)[0]:
                seen += os.read(leader, 65_536)

    see(b"/ #")
    os.write(leader, b"tty; echo $((40+2)); exit 5\n")
    see(b"/dev/pts/0")
    see(b"42")
    assert shell.wait(20) == 5
    os.close(leader)


def test_attach_replays_nothing_and_follows(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "-i", "--name", "talk", "busybox", "cat")
    with fleet.start("attach", "--sig-proxy=false", "talk", stdin=subprocess.PIPE) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write(b"hello\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == b"hello\n"
        fleet.docker("kill", "talk")
        assert attached.wait(20) == 137


def test_logs(fleet: Fleet) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"
    fleet.docker("run", "-d", "--name", "log", "busybox", "sh", "-c", script)
    followed = fleet.docker("logs", "-f", "log").out
    assert followed.splitlines() == [f"line {n}" for n in range(1, 6)]
    assert fleet.docker("logs", "--tail", "2", "log").out == "line 4\nline 5"
    stamped = fleet.docker("logs", "-t", "--tail", "1", "log").out
    stamp, _, text = stamped.partition(" ")
    assert text == "line 5"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{9}Z", stamp)
    assert fleet.docker("logs", "--since", stamp, "log").out.endswith("line 5")
    assert fleet.docker("logs", "--since", "2100-01-01T00:00:00Z", "log").out == ""


def test_copy_in_and_out(fleet: Fleet, tmp_path: Path) -> None:
    fleet.docker("run", "-d", "--name", "box", "busybox", "sleep", "600")
    source = tmp_path / "folder"
    source.mkdir()
    (source / "a").write_bytes(os.urandom(3_000_000))
    (source / "link").symlink_to("a")
    fleet.docker("cp", str(source), "box:/tmp/there")
    assert fleet.docker("exec", "box", "sh", "-c", "ls /tmp/there").out.split() == ["a", "link"]
    fleet.docker("cp", "box:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back" / "a").read_bytes() == (source / "a").read_bytes()
    assert (tmp_path / "back" / "link").is_symlink()
    assert "Could not find the file" in fleet.docker("cp", "box:/nosuch", "-", code=1).err
    fleet.docker("create", "--name", "cold", "busybox", "cat", "/etc/added")
    (tmp_path / "added").write_text("cold\n")
    fleet.docker("cp", str(tmp_path / "added"), "cold:/etc/added")
    assert fleet.docker("start", "-a", "cold").out == "cold"


def test_stats_and_limits(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "small", "--memory", "64m", "--cpus", "0.5",
                 "--pids-limit", "20", "busybox", "sleep", "600")  # fmt: skip
    shown = fleet.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "small").out
    assert "64MiB" in shown
    assert shown.endswith(" 1")
    forks = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; wait"
    assert "can't fork" in fleet.docker("exec", "small", "sh", "-c", forks, code=None).err
    hog = fleet.docker("run", "--name", "hog", "--memory", "16m", "busybox", "sh", "-c",
                       "x=a; while true; do x=$x$x; done", code=None)  # fmt: skip
    assert hog.code == 137
    assert fleet.inspect("hog")["State"]["OOMKilled"]


def test_events_tell_the_life(fleet: Fleet) -> None:
    lines: list[str] = []
    words = ("events", "--since", str(time.time()), "--filter", "container=told")
    with fleet.start(*words, "--format", "{{.Action}}") as client:
        assert client.stdout is not None
        stdout = client.stdout
        reader = threading.Thread(target=lambda: lines.extend(x.decode().strip() for x in stdout))
        reader.start()
        fleet.docker("run", "--rm", "--name", "told", "busybox", "true")
        until(lambda: "destroy" in lines)
        client.kill()
        reader.join()
    wanted = ["create", "start", "die", "destroy"]
    assert [line for line in lines if line in wanted] == wanted

    def past() -> str:
        """`--until` has whole seconds."""
        return fleet.docker("events", "--since", "10m", "--until", "0s", "--filter",
                            "container=told", "--format", "{{.Action}}").out  # fmt: skip

    until(lambda: "destroy" in past())


def test_a_removal_by_force_is_told_as_one_kill(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "gone", "busybox", "sleep", "600")
    fleet.docker("rm", "-f", "gone")

    def past() -> list[str]:
        return fleet.docker("events", "--since", "10m", "--until", "0s", "--filter",
                            "container=gone", "--format", "{{.Action}}").out.split()  # fmt: skip

    until(lambda: "destroy" in past())
    assert past() == ["create", "start", "kill", "die", "destroy"]


def test_volume_outlives_its_container_and_draws_the_next_one(fleet: Fleet) -> None:
    fleet.docker("run", "--rm", "--name", "first", "-v", "data:/d", "busybox", "sh", "-c",
                 "echo kept > /d/f")  # fmt: skip
    homes = set()
    for number in range(3):
        name = f"next{number}"
        fleet.docker("run", "--name", name, "-v", "data:/d:ro", "busybox", "cat", "/d/f")
        homes.add(fleet.host_of(name))
        assert fleet.docker("logs", name).out == "kept"
    assert len(homes) == 1
    assert "volume is in use" in fleet.docker("volume", "rm", "data", code=1).err


def test_anonymous_volume_goes_with_its_container(fleet: Fleet) -> None:
    fleet.docker("run", "--rm", "-v", "/d", "busybox", "touch", "/d/f")
    until(lambda: fleet.docker("volume", "ls", "-q").out == "")
