"""Groups of the command line beside containers, images, networks, volumes: what they show, and how they are refused."""

import json

import pytest
from tests.farm.fleet import Fleet


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("swarm", "init"), "no swarm mode"),
        (("swarm", "join", "--token", "x", "127.0.0.1:1"), "no swarm mode"),
        (("service", "ls"), "docker compose"),
        (("service", "create", "busybox"), "docker compose"),
        (("stack", "ls"), "docker compose"),
        (("secret", "ls"), "no swarm mode"),
        (("config", "ls"), "no swarm mode"),
        (("node", "promote", "host1"), "hosts of a fleet are workers"),
        (("node", "ps", "host1"), "`docker ps` lists the containers"),
        (("node", "rm", "--force", "host1"), "a host leaves the fleet"),
        (("plugin", "install", "some"), "power over a host"),
        (("volume", "update", "some", "--availability", "drain"), "no such volume"),
    ],
)
def test_what_a_fleet_has_not_is_refused_in_words(
    fleet: Fleet, words: tuple[str, ...], why: str
) -> None:
    done = fleet.docker(*words, code=1)
    assert why in done.err


def test_leaving_a_swarm_that_there_is_not(fleet: Fleet) -> None:
    assert "not part of a swarm" in fleet.docker("swarm", "leave", "--force", code=1).err


def test_hosts_are_workers_already(fleet: Fleet) -> None:
    assert "already a worker" in fleet.docker("node", "demote", "host1").out


def test_plugins_are_none(fleet: Fleet) -> None:
    assert fleet.docker("plugin", "ls", "-q").out == ""
    assert fleet.docker("plugin", "inspect", "some", code=1).err


def test_search_knows_the_store(fleet: Fleet) -> None:
    assert fleet.docker("search", "--format", "{{.Name}}", "busyb").out == "busybox"
    assert fleet.docker("search", "--format", "{{.Name}}", "nosuch").out == ""


def test_a_context_leads_to_the_fleet(fleet: Fleet) -> None:
    fleet.docker("context", "create", "lab", "--docker", f"host={fleet.url}")
    try:
        shown = json.loads(fleet.docker("context", "inspect", "lab").out)[0]
        assert shown["Endpoints"]["docker"]["Host"] == fleet.url
        version = fleet.docker("--context", "lab", "version", "--format", "{{.Server.APIVersion}}")
        assert version.out == "1.50"
    finally:
        fleet.docker("context", "rm", "-f", "lab")


def test_system_prune_takes_what_is_not_used(fleet: Fleet) -> None:
    fleet.docker("network", "create", "idle")
    fleet.docker("volume", "create", "named")
    fleet.docker("run", "--name", "over", "-v", "/anonymous", "busybox", "true")
    fleet.docker("run", "-d", "--name", "alive", "busybox", "sleep", "600")
    done = fleet.docker("system", "prune", "-f")
    assert "Deleted Containers" in done.out
    assert "Deleted Networks:\nidle" in done.out
    assert "Total reclaimed space" in done.out
    assert fleet.docker("ps", "-a", "--format", "{{.Names}}").out == "alive"
    assert len(fleet.docker("volume", "ls", "-q").out.split()) == 2
    fleet.docker("system", "prune", "-f", "--volumes")
    assert fleet.docker("volume", "ls", "-q").out == "named"
    rows = fleet.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}}").out.splitlines()
    assert "Containers 1" in rows
    assert "Local Volumes 1" in rows
