"""Restart policies: kept by the hosts, through kill -9 of anything."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.e2e.test_changes import actions_of
from tests.farm.fleet import Fleet, until, until_clean

ON_HOST1 = ("--label", "labfleet.constraint=host==host1")
FAILS = ("busybox", "sh", "-c", "echo run; exit 3")
LIVES = ("busybox", "sleep", "600")


def count(fleet: Fleet, name: str) -> int:
    return int(fleet.inspect(name)["RestartCount"])


def status(fleet: Fleet, name: str) -> str:
    return str(fleet.inspect(name)["State"]["Status"])


def test_on_failure_restarts_so_often_and_no_more(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "f1", "--restart", "on-failure:2", *FAILS)
    until(lambda: status(fleet, "f1") == "exited")
    about = fleet.inspect("f1")
    assert (about["RestartCount"], about["State"]["ExitCode"]) == (2, 3)
    assert about["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert fleet.docker("logs", "f1").out.split() == ["run"] * 3
    until(lambda: actions_of(fleet, "f1") == ["create", *["start", "die"] * 3])
    fleet.docker("start", "f1")
    until(lambda: status(fleet, "f1") == "exited")
    assert count(fleet, "f1") == 2  # counted anew
    fleet.docker("run", "-d", "--name", "good", "--restart", "on-failure", "busybox", "true")
    assert fleet.docker("wait", "good").out == "0"
    assert count(fleet, "good") == 0
    until_clean(fleet)


def test_a_restarting_container_says_so_and_can_be_stopped(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "a1", "--restart", "always", *FAILS)
    until(lambda: count(fleet, "a1") >= 4)  # then the next wait takes 1.6 s
    until(lambda: status(fleet, "a1") == "restarting")
    state = fleet.inspect("a1")["State"]
    assert (state["Running"], state["Restarting"], state["ExitCode"]) == (True, True, 3)
    assert "Restarting (3)" in fleet.docker("ps", "--format", "{{.Status}}").out
    assert fleet.docker("ps", "-q", "--filter", "status=restarting").out
    fleet.docker("stop", "a1")
    assert status(fleet, "a1") == "exited"
    restarts = count(fleet, "a1")
    time.sleep(2)
    assert (status(fleet, "a1"), count(fleet, "a1")) == ("exited", restarts)
    fleet.docker("start", "a1")
    until(lambda: count(fleet, "a1") >= 1)
    fleet.docker("rm", "-f", "a1")
    until_clean(fleet)


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_a_process_that_dies_is_replaced_and_a_kill_is_final(fleet: Fleet, policy: str) -> None:
    fleet.docker("network", "create", "lan")
    fleet.docker("run", "-d", "--name", "x1", "--restart", policy, "--network", "lan", "-p",
                 "41234:80", *LIVES)  # fmt: skip
    before = fleet.inspect("x1")["State"]
    os.kill(before["Pid"], 9)  # not by the owner
    until(lambda: fleet.inspect("x1")["State"]["Pid"] not in (0, before["Pid"]))
    about = fleet.inspect("x1")
    assert (about["RestartCount"], about["State"]["Status"]) == (1, "running")
    assert about["NetworkSettings"]["Networks"]["lan"]["IPAddress"]
    assert fleet.docker("exec", "x1", "nslookup", "-type=a", "x1").code == 0
    fleet.docker("kill", "x1")
    assert fleet.docker("wait", "x1").out == "137"
    time.sleep(0.5)
    assert status(fleet, "x1") == "exited"
    until_clean(fleet)


def test_wait_ends_with_the_next_run_and_logs_go_on(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "w1", "--restart", "on-failure:3", "busybox", "sh", "-c",
                 "echo line; sleep 0.4; exit 6")  # fmt: skip
    with fleet.start("logs", "-f", "w1") as following:
        assert fleet.docker("wait", "w1").out == "6"
        assert following.wait(20) == 0
        assert following.stdout is not None
        assert following.stdout.read().split() == [b"line"] * 4


def test_rm_and_a_policy_contradict_each_other(fleet: Fleet) -> None:
    done = fleet.docker("run", "-d", "--rm", "--restart", "always", *LIVES, code=125)
    assert "conflicting options" in done.err  # the client's own words
    fleet.docker("run", "-d", "--rm", "--name", "r1", *LIVES)
    words = "Restart policy cannot be updated because AutoRemove is enabled"
    assert words in fleet.docker("update", "--restart", "always", "r1", code=1).err


def test_the_policy_can_be_changed(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "c1", "--restart", "always", *FAILS)
    until(lambda: count(fleet, "c1") >= 1)
    fleet.docker("update", "--restart", "no", "c1")
    until(lambda: status(fleet, "c1") == "exited")
    assert fleet.inspect("c1")["HostConfig"]["RestartPolicy"]["Name"] == "no"


def test_restarts_go_on_when_services_are_killed(fleet: Fleet) -> None:
    """The next run comes once, whatever part of the wait the agent misses."""
    script = "echo run; sleep 0.3; exit 3"
    fleet.docker("run", "-d", "--name", "k1", "--restart", "on-failure:6", *ON_HOST1, "busybox",
                 "sh", "-c", script)  # fmt: skip
    for service in ("runtime-agent-host1", "api", "network-host1", "runtime-agent-host1"):
        old = fleet.kill_service(service)
        until(lambda s=service, o=old: fleet.service_pid(s) not in (0, o))
        fleet.wait_ready()
    until(lambda: status(fleet, "k1") == "exited", 60)
    assert count(fleet, "k1") == 6
    assert fleet.docker("logs", "k1").out.split() == ["run"] * 7
    until_clean(fleet)


def test_after_a_reboot_of_the_host(fleet: Fleet) -> None:
    """A ledger of another boot, and no process left: always and unless-stopped run again."""
    policies = ("no", "on-failure", "always", "unless-stopped")
    for policy in policies:
        fleet.docker("run", "-d", "--name", policy, "--restart", policy, *ON_HOST1, *LIVES)
    fleet.docker("run", "-d", "--name", "stopped", "--restart", "always", *ON_HOST1, *LIVES)
    fleet.docker("stop", "-t", "0", "stopped")
    pids = [fleet.inspect(name)["State"]["Pid"] for name in policies]
    name = "runtime-agent-host1"
    old = fleet.service_pid(name)
    notes = fleet.plan.run_dir / "hosts" / "host1" / "ledger"  # a reboot empties it
    until(lambda: not any(notes.iterdir()))
    os.kill(old, signal.SIGSTOP)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for home in (fleet.plan.state_dir / "hosts" / "host1").rglob("ledger.json"):
        home.write_text(home.read_text().replace(boot, "00000000-0000-4000-8000-000000000000"))
    for pid in (*pids, old):
        os.kill(pid, signal.SIGKILL)
    until(lambda: fleet.service_pid(name) not in (0, old))
    fleet.wait_ready()
    for policy in ("always", "unless-stopped"):
        until(lambda p=policy: status(fleet, p) == "running")
    for other in ("no", "on-failure", "stopped"):
        until(lambda o=other: status(fleet, o) == "exited")
    until_clean(fleet)
