"""kill -9 of every service in turn: containers never notice, nothing is lost, nothing leaks."""

import contextlib
import random
import time
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until, until_clean

from labfleet_proto.buckets import LEADERS

COUNT = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.05; done"
SERVICES = (
    "api",
    "scheduler",
    "image-store",
    "network-entry",
    "network-host1",
    "runtime-agent-host1",
    "network-host2",
    "runtime-agent-host2",
    "nats",
)


def _facts(fleet: Fleet, names: list[str]) -> dict[str, tuple[int, str]]:
    found = {}
    for name in names:
        state = fleet.inspect(name)["State"]
        assert state["Running"], name
        found[name] = (state["Pid"], state["StartedAt"])
    return found


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _check_logs(fleet: Fleet, name: str) -> None:
    """Every number from 0 on, once, in order."""
    lines = fleet.docker("logs", name).out.splitlines()
    assert len(lines) > 10
    assert [int(line) for line in lines] == list(range(len(lines)))


def _start_class(fleet: Fleet) -> list[str]:
    fleet.docker("network", "create", "class")
    names = [f"c{number}" for number in range(6)]
    for name in names:
        fleet.docker("run", "-d", "--name", name, "--network", "class", "busybox", "sh", "-c",
                     COUNT)  # fmt: skip
    return names


def _check_class(fleet: Fleet, names: list[str], before: dict[str, tuple[int, str]]) -> None:
    assert _facts(fleet, names) == before
    for name in names:
        assert _is_alive(before[name][0])
        assert fleet.docker("exec", name, "echo", "alive").out == "alive"
        _check_logs(fleet, name)
    address = fleet.docker("exec", names[0], "nslookup", "-type=a", names[1]).out
    there = fleet.inspect(names[1])["NetworkSettings"]["Networks"]["class"]["IPAddress"]
    assert there in address


@pytest.mark.parametrize("service", SERVICES)
def test_one_service_is_killed(fleet: Fleet, service: str) -> None:
    names = _start_class(fleet)
    before = _facts(fleet, names)
    old = fleet.kill_service(service)
    until(lambda: fleet.service_pid(service) not in (0, old))
    fleet.wait_ready()
    _check_class(fleet, names, before)
    fleet.docker("run", "--rm", "--network", "class", "busybox", "true")
    until_clean(fleet)


def test_all_services_are_killed_in_any_order(fleet: Fleet) -> None:
    names = _start_class(fleet)
    before = _facts(fleet, names)
    order = [*SERVICES, "network-host3", "runtime-agent-host3"]
    random.Random(7).shuffle(order)
    for service in order:
        if fleet.service_pid(service):
            fleet.kill_service(service)
    fleet.wait_ready()
    _check_class(fleet, names, before)
    until_clean(fleet)


def test_a_scheduler_that_slept_through_its_lease_refuses_nobody(fleet: Fleet) -> None:
    """What it may not decide any more, the next one does."""
    old = fleet.service_pid("scheduler")
    with contextlib.ExitStack() as clients:
        with fleet.freeze_service("scheduler"):
            running = clients.enter_context(fleet.start("run", "--name", "one", "busybox", "true"))
            time.sleep(LEADERS.ttl_s + 0.5)
        assert running.wait(20) == 0
    until(lambda: fleet.service_pid("scheduler") not in (0, old))
    fleet.wait_ready()
    until_clean(fleet)


def test_what_happens_while_the_agent_is_down_is_noticed(fleet: Fleet) -> None:
    """An exit with its code, and the promise of --rm."""
    script = "while [ ! -e /go ]; do sleep 0.05; done; exit 9"
    for name, extra in (("ends", []), ("goes", ["--rm"])):
        fleet.docker("run", "-d", "--name", name, "--label", "labfleet.constraint=host==host1",
                     *extra, "busybox", "sh", "-c", script)  # fmt: skip
    pids = [fleet.inspect(name)["State"]["Pid"] for name in ("ends", "goes")]
    old = fleet.kill_service("runtime-agent-host1")
    for pid in pids:
        Path(f"/proc/{pid}/root/go").touch()
    until(lambda: not any(_is_alive(pid) for pid in pids))
    until(lambda: fleet.service_pid("runtime-agent-host1") not in (0, old))
    until(lambda: fleet.docker("ps", "-a", "--format", "{{.Names}}").out == "ends", 20)
    assert fleet.docker("wait", "ends").out == "9"
    until_clean(fleet)


def test_services_go_down_and_up_and_containers_live_on(fleet: Fleet) -> None:
    names = _start_class(fleet)
    before = _facts(fleet, names)
    began_s = time.monotonic()
    fleet.labfleet("down")
    assert time.monotonic() - began_s < 14, "a service had to be killed"
    assert all(_is_alive(pid) for pid, _ in before.values())
    fleet.labfleet("up")
    _check_class(fleet, names, before)
    until_clean(fleet)


def test_up_again_changes_nothing(fleet: Fleet) -> None:
    pids = {name: fleet.service_pid(name) for name in SERVICES}
    said = fleet.labfleet("up").out
    assert "is up already" in said
    assert {name: fleet.service_pid(name) for name in SERVICES} == pids


def test_status_logs_doctor(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "seen", "busybox", "sleep", "60")
    shown = fleet.labfleet("status").out
    for word in ("scheduler", "runtime-agent", "host3", "seen", "busybox"):
        assert word in shown
    assert "container.placed" in fleet.labfleet("logs", "scheduler").out
    assert "no service nosuch" in fleet.labfleet("logs", "nosuch", code=1).out
