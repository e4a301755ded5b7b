"""Wishes that meet: what was asked first is done first, also when nobody answered it yet."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until, until_clean
from tests.farm.memory import recall, remember


def _wish(fleet: Fleet, container: str) -> tuple[str, int, int]:
    """Goal, attempt and generation of a container's record."""
    record = recall(fleet, "containers", f"operators.{container}")
    assert record is not None
    return record["goal"], record["attempt"], record["generation"]


def _make(fleet: Fleet, *words: str) -> tuple[str, str]:
    """A container on host1; its id, and the name of its agent."""
    label = "labfleet.constraint=host==host1"
    container = fleet.docker(*words, "--name", "one", "--label", label, "busybox", "sleep", "60")
    return container.out, "runtime-agent-host1"


def test_a_start_after_a_stop_that_nobody_answered_comes_second(fleet: Fleet) -> None:
    container, agent = _make(fleet, "run", "-d")
    before = fleet.inspect("one")["State"]
    with contextlib.ExitStack() as clients:
        with fleet.freeze_service(agent):
            stopping = clients.enter_context(fleet.start("stop", "-t", "0", "one"))
            until(lambda: _wish(fleet, container)[:2] == ("stopped", 1))
            starting = clients.enter_context(fleet.start("start", "one"))
            until(lambda: _wish(fleet, container)[:2] == ("running", 2))
        assert starting.wait(20) == 0
        stopping.wait(20)
    after = fleet.inspect("one")["State"]
    assert after["Running"]
    assert after["StartedAt"] > before["StartedAt"]


def test_two_starts_at_once_are_one(fleet: Fleet) -> None:
    container, agent = _make(fleet, "create")
    with contextlib.ExitStack() as clients:
        with fleet.freeze_service(agent):
            first = clients.enter_context(fleet.start("start", "one"))
            until(lambda: _wish(fleet, container) == ("running", 1, 2))
            second = clients.enter_context(fleet.start("start", "one"))
            until(lambda: _wish(fleet, container)[2] == 3)
        assert first.wait(20) == 0
        assert second.wait(20) == 0
    assert _wish(fleet, container)[1] == 1
    assert fleet.inspect("one")["State"]["Running"]


def test_a_stop_calls_off_a_start_that_is_on_its_way(fleet: Fleet) -> None:
    container, agent = _make(fleet, "create")
    with contextlib.ExitStack() as clients:
        with fleet.freeze_service(agent):
            starting = clients.enter_context(fleet.start("start", "one"))
            until(lambda: _wish(fleet, container)[0] == "running")
            stopping = clients.enter_context(fleet.start("stop", "-t", "0", "one"))
            until(lambda: _wish(fleet, container)[0] == "stopped")
        assert stopping.wait(20) == 0
        starting.wait(20)
    assert not fleet.inspect("one")["State"]["Running"]


@pytest.mark.parametrize("words", [(), ("--rm",)])
def test_an_end_that_the_host_alone_knows_is_told_after_its_agent_was_killed(
    fleet: Fleet, words: tuple[str, ...]
) -> None:
    """The bus hears nothing while the container ends; then the agent is killed."""
    container, agent = _make(fleet, "run", "-d", *words)
    pid = fleet.inspect("one")["State"]["Pid"]
    ledger = fleet.plan.state_dir / "hosts" / "host1" / "containers" / container / "ledger.json"
    wanted = 60 if words else 50
    with fleet.freeze_service("nats"):
        os.kill(pid, signal.SIGKILL)
        until(lambda: _state_in(ledger) >= wanted, 30)
        fleet.kill_service(agent)
    fleet.wait_ready()
    shown = "" if words else "one exited"
    until(lambda: fleet.docker("ps", "-a", "--format", "{{.Names}} {{.State}}").out == shown, 20)
    until_clean(fleet)


def _state_in(ledger: Path) -> int:
    try:
        seen = json.loads(ledger.read_text())["seen"]
    except FileNotFoundError:
        return 60
    return int(seen["state"])


@pytest.mark.long
def test_what_a_killed_api_claimed_for_a_network_is_given_back(fleet: Fleet) -> None:
    lost = "f" * 64
    remember(fleet, "network_names", "operators.half", {"id": lost})
    remember(fleet, "subnets", "net.10.103.255.0-24", {"network": lost})
    assert "already exists" in fleet.docker("network", "create", "half", code=1).err
    until(lambda: fleet.docker("network", "create", "half", code=None).code == 0, 30, 1)
    until_clean(fleet)
