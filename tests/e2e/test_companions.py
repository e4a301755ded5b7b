"""Containers of one tenant in each other's namespaces."""

import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.tenant import Tenant


@pytest.fixture
def ann(fleet: Fleet, tenants: tuple[Tenant, Tenant]) -> Tenant:  # noqa: ARG001 - empty again afterwards
    return tenants[0]


def test_processes_and_memory_of_another(ann: Tenant) -> None:
    ann.docker("run", "-d", "--name", "web", "--ipc", "shareable", "busybox", "sleep", "543")
    try:
        ann.docker("exec", "web", "sh", "-c", "echo shared > /dev/shm/word")
        seen = ann.docker("run", "--rm", "--pid", "container:web", "busybox", "ps").out
        assert "sleep 543" in seen
        both = ("--pid", "container:web", "--ipc", "container:web", "--network", "container:web")
        script = "cat /dev/shm/word; readlink /proc/1/ns/ipc; readlink /proc/self/ns/ipc; kill -0 1 && id -u"
        lines = ann.docker(
            "run", "--name", "aside", *both, "busybox", "sh", "-c", script
        ).out.splitlines()
        assert lines[0] == "shared"
        assert lines[1] == lines[2]
        assert lines[3] == "0"
        shown = ann.docker(
            "inspect", "-f", "{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}}", "aside"
        )
        assert shown.out == "container:web container:web"
        assert ann.docker("inspect", "-f", "{{.HostConfig.IpcMode}}", "web").out == "shareable"
        assert (
            ann.docker("run", "--rm", "--ipc", "none", "busybox", "ls", "/dev").out.count("shm")
            == 0
        )
    finally:
        ann.docker("rm", "-f", "web", "aside")


def test_who_is_in_another_ends_with_it_and_leaves_nothing_in_it(ann: Tenant) -> None:
    ann.docker("run", "-d", "--name", "web", "busybox", "sleep", "600")
    try:
        join = ("--pid", "container:web", "busybox", "sh", "-c")
        ann.docker("run", "-d", "--name", "left", *join, "sleep 321 & exec sleep 600")
        until(lambda: "sleep 321" in ann.docker("exec", "web", "ps").out)
        assert ann.docker("exec", "left", "echo", "in").out == "in"
        ann.docker("stop", "-t", "5", "left")
        assert "sleep 321" not in ann.docker("exec", "web", "ps").out
        ann.docker("start", "left")
        ann.docker("kill", "web")
        assert ann.docker("wait", "left").out == "137"
        done = ann.docker("start", "left", code=1)
        assert "is not running" in done.err
        ann.docker("start", "web")
        ann.docker("start", "left")
    finally:
        ann.docker("rm", "-f", "left", "web")


def test_what_cannot_be_joined(ann: Tenant, fleet: Fleet, tenants: tuple[Tenant, Tenant]) -> None:
    _, bob = tenants
    ann.docker("run", "-d", "--name", "web", "busybox", "sleep", "600")
    fleet.docker("run", "-d", "--name", "host", "--pid", "host", "busybox", "sleep", "600")
    try:
        done = bob.docker("create", "--pid", "container:web", "busybox", code=1)
        assert "No such container: web" in done.err
        done = ann.docker("run", "--ipc", "container:web", "busybox", "true", code=125)
        assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in done.err
        fleet.docker("run", "--rm", "--pid", "container:host", "busybox", "true")
    finally:
        for name in ann.docker("ps", "-aq").out.split():
            ann.docker("rm", "-f", name)
