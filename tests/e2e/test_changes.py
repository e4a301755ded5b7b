"""A container that stays what it is and changes: rename, pause, update."""

import json
import subprocess

from tests.farm.fleet import Fleet, until, until_clean

ON_HOST1 = ("--label", "labfleet.constraint=host==host1")
COUNT = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.02; done"


def actions_of(fleet: Fleet, name: str) -> list[str]:
    """What the events say of a container, in order."""
    container = fleet.inspect(name)["Id"]
    out = fleet.docker("events", "--since", "1h", "--until", "0s", "--filter",
                       f"container={container}", "--format", "{{.Action}}").out  # fmt: skip
    return out.splitlines()


def test_rename_frees_the_old_name(fleet: Fleet) -> None:
    fleet.docker("network", "create", "lan")
    fleet.docker("run", "-d", "--name", "old", "--network", "lan", "busybox", "sleep", "600")
    fleet.docker("run", "-d", "--name", "other", "--network", "lan", "busybox", "sleep", "600")
    fleet.docker("rename", "old", "new")
    assert fleet.inspect("new")["Name"] == "/new"
    assert "No such container" in fleet.docker("rename", "old", "x2", code=1).err
    fleet.docker("create", "--name", "old", "busybox")  # the name is free at once
    ask = ("exec", "other", "nslookup", "-type=a")
    until(lambda: fleet.docker(*ask, "new", code=None).code == 0)
    assert fleet.docker(*ask, "old", code=None).code != 0
    for text, words in (
        ("other", 'The container name "/other" is already in use by container'),
        ("new", "same name as its current name"),
        ("?", "Invalid container name (?)"),
    ):
        assert words in fleet.docker("rename", "new", text, code=1).err
    fleet.docker("stop", "-t", "0", "new")
    fleet.docker("rename", "new", "newer")
    fleet.docker("start", "newer")
    until(lambda: fleet.docker(*ask, "newer", code=None).code == 0)
    until(lambda: actions_of(fleet, "newer").count("rename") == 2)
    seen = fleet.docker("events", "--since", "1h", "--until", "0s", "--filter", "event=rename",
                        "--format", "{{json .Actor.Attributes}}").out  # fmt: skip
    about = [json.loads(line) for line in seen.splitlines()]
    assert [(each["oldName"], each["name"]) for each in about][-2:] == [
        ("/old", "new"),
        ("/new", "newer"),
    ]


def test_a_paused_container_stands_still(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "p1", *ON_HOST1, "busybox", "sh", "-c", COUNT)
    fleet.docker("pause", "p1")
    assert "(Paused)" in fleet.docker("ps", "--format", "{{.Status}}").out
    state = fleet.inspect("p1")["State"]
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True)
    before = fleet.docker("logs", "p1").out
    assert "is already paused" in fleet.docker("pause", "p1", code=1).err
    assert "unpause the container before exec" in fleet.docker("exec", "p1", "true", code=1).err
    assert "must be unpaused first" in fleet.docker("rm", "p1", code=1).err
    assert "try unpause instead" in fleet.docker("start", "p1", code=1).err
    assert "sh -c" in fleet.docker("top", "p1").out
    assert fleet.docker("stats", "--no-stream", "--format", "{{.PIDs}}", "p1").out in ("1", "2")
    assert fleet.docker("ps", "-q", "--filter", "status=paused").out
    assert fleet.docker("info", "--format", "{{.ContainersPaused}}").out == "1"
    old = fleet.kill_service("runtime-agent-host1")
    until(lambda: fleet.service_pid("runtime-agent-host1") not in (0, old))
    fleet.wait_ready()
    assert fleet.inspect("p1")["State"]["Paused"]
    assert fleet.docker("logs", "p1").out == before
    fleet.docker("unpause", "p1")
    assert fleet.inspect("p1")["State"]["Status"] == "running"
    until(lambda: len(fleet.docker("logs", "p1").out) > len(before))
    assert "is not paused" in fleet.docker("unpause", "p1", code=1).err
    until(lambda: actions_of(fleet, "p1")[-4:] == ["start", "pause", "top", "unpause"])


def test_stop_kill_and_rm_of_a_paused_container(fleet: Fleet) -> None:
    for name in ("s1", "k1", "r1"):
        fleet.docker("run", "-d", "--name", name, "busybox", "sh", "-c",
                     "trap 'exit 3' TERM; while true; do sleep 0.05; done")  # fmt: skip
        fleet.docker("pause", name)
    fleet.docker("stop", "s1")
    assert fleet.inspect("s1")["State"]["ExitCode"] == 3
    fleet.docker("kill", "k1")
    assert fleet.docker("wait", "k1").out == "137"
    fleet.docker("rm", "-f", "r1")
    assert fleet.docker("ps", "-aq", "--filter", "name=r").out == ""
    assert "is not running" in fleet.docker("pause", "s1", code=1).err
    until_clean(fleet)


def test_update_changes_limits_at_once_and_for_good(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "u1", *ON_HOST1, "-m", "64m", "busybox", "sleep", "600")
    group = f"/sys/fs/cgroup/memory/{fleet.plan.name}/host1/{fleet.inspect('u1')['Id']}"
    fleet.docker("update", "-m", "128m", "--cpus", "0.5", "--pids-limit", "77", "--cpu-shares",
                 "512", "--cpuset-cpus", "0", "u1")  # fmt: skip

    def check() -> None:
        host = fleet.inspect("u1")["HostConfig"]
        assert (host["Memory"], host["NanoCpus"]) == (128 << 20, 500_000_000)
        assert (host["PidsLimit"], host["CpuShares"], host["CpusetCpus"]) == (77, 512, "0")
        limit = fleet.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "u1").out
        assert "128MiB" in limit, group

    check()
    old = fleet.kill_service("runtime-agent-host1")
    until(lambda: fleet.service_pid("runtime-agent-host1") not in (0, old))
    fleet.wait_ready()
    check()
    fleet.docker("restart", "-t", "0", "u1")
    check()
    words = "CPU Quota cannot be updated as NanoCPUs has already been set"
    assert words in fleet.docker("update", "--cpu-quota", "25000", "u1", code=1).err
    fleet.docker("update", "-m", "64m", "--memory-swap", "-1", "u1")
    assert fleet.inspect("u1")["HostConfig"]["Memory"] == 64 << 20
    fleet.docker("create", "--name", "u2", "busybox", "true")
    fleet.docker("update", "--cpu-quota", "25000", "--cpu-period", "50000", "u2")
    host = fleet.inspect("u2")["HostConfig"]
    assert (host["CpuQuota"], host["CpuPeriod"], host["NanoCpus"]) == (25_000, 50_000, 0)
    until(lambda: actions_of(fleet, "u1").count("update") == 2)


def test_an_update_that_the_host_refuses_changes_nothing(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "big", "-m", "64m", "busybox", "sh", "-c",
                 "dd if=/dev/zero of=/dev/shm/x bs=1M count=30; sleep 600")  # fmt: skip
    before = fleet.inspect("big")["HostConfig"]
    for words, why in (
        (("-m", "1000g"), "has no room left to enlarge big: it lacks memory"),
        (("--cpus", "5000"), "it lacks cpu"),
        (("--cpuset-cpus", "900"), "Requested CPUs are not available"),
        (("-m", "4m"), "Minimum memory limit allowed is 6MB"),
    ):
        assert why in fleet.docker("update", *words, "big", code=1).err
    until(lambda: fleet.docker("exec", "big", "ls", "-l", "/dev/shm/x").out.split()[4] > "31457279")
    assert "unable to set memory limit" in fleet.docker("update", "-m", "16m", "big", code=1).err
    assert fleet.inspect("big")["HostConfig"] == before


def test_stats_top_and_prune(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "on", "busybox", "sleep", "600")
    fleet.docker("run", "--name", "off", "--label", "a=b", "busybox", "true")
    fleet.docker("create", "--name", "new", "--label", "keep", "busybox")
    fleet.docker("create", "--name", "later", "busybox")
    assert "PID" in fleet.docker("top", "on", "-o", "pid,comm").out
    kept = ("--filter", "label!=keep", "--filter", "until=1h")
    fleet.docker("container", "prune", "-f", *kept)
    names = fleet.docker("ps", "-a", "--format", "{{.Names}}").out.split()
    assert set(names) == {"on", "off", "new", "later"}
    done = fleet.docker("container", "prune", "-f", *kept[:2])
    assert "Total reclaimed space" in done.out
    names = fleet.docker("ps", "-a", "--format", "{{.Names}}").out.split()
    assert set(names) == {"on", "new"}
    fleet.docker("container", "prune", "-f")
    assert fleet.docker("ps", "-a", "--format", "{{.Names}}").out == "on"


def test_wait_outlives_restarts_by_hand(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "w1", "busybox", "sh", "-c",
                 "trap 'exit 4' TERM; while true; do sleep 0.05; done")  # fmt: skip
    with fleet.start("wait", "w1") as waiting:
        until(lambda: waiting.poll() is None)
        fleet.docker("restart", "w1")
        assert waiting.wait(10) == 0
        assert waiting.stdout is not None
        assert waiting.stdout.read().strip() in (b"4", b"143")
    assert isinstance(waiting, subprocess.Popen)
