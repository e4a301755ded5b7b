"""Raw sockets: what `NET_RAW` opens, and that nobody speaks in the name of another with them."""

import re
from pathlib import Path

import pytest
from tests.farm import raw_frames
from tests.farm.fleet import Fleet, until, until_clean

PING = ("ping", "-c", "1", "-W", "2")
HONEST = {"own", "arp-own"}


def _on(host: int) -> tuple[str, str]:
    return "--label", f"labfleet.constraint=host==host{host}"


def _port(fleet: Fleet, name: str) -> dict[str, str]:
    """Addresses of a container in the network `lab`."""
    about = fleet.inspect(name)["NetworkSettings"]["Networks"]["lab"]
    return {"mac": about["MacAddress"], "ip": about["IPAddress"]}


def test_ping_with_a_raw_socket(fleet: Fleet) -> None:
    fleet.docker("network", "create", "lab")
    fleet.docker(
        "run", "-d", "--name", "far", "--network", "lab", *_on(2), "busybox", "sleep", "600"
    )
    fleet.docker("run", "-d", "--name", "near", "--network", "lab", "--cap-add", "NET_RAW",
                 *_on(1), "busybox", "sleep", "600")  # fmt: skip
    out = until(lambda: fleet.docker("exec", "near", *PING, "far", code=None).out)
    assert "1 packets received" in str(out)
    assert "permission denied" in fleet.docker("exec", "far", *PING, "near", code=1).err
    run = ("run", "--rm", "--cap-add", "NET_RAW", "busybox")
    assert "1 packets received" in fleet.docker(*run, *PING, "127.0.0.1").out
    host = fleet.host_of("near")
    for service in (f"runtime-agent-{host}", f"network-{host}"):
        fleet.kill_service(service)
    fleet.wait_ready()
    fleet.docker("restart", "-t", "0", "near")
    out = until(lambda: fleet.docker("exec", "near", *PING, "far", code=None).out)
    assert "1 packets received" in str(out)
    until_clean(fleet)


def test_ping_in_a_build(fleet: Fleet, tmp_path: Path) -> None:
    recipe = "FROM busybox\nRUN ping -c 1 -W 2 127.0.0.1 && ping -c 1 -W 2 elsewhere > /said\n"
    (tmp_path / "Dockerfile").write_text(recipe)
    fleet.docker("build", "--add-host", "elsewhere:127.0.0.1", "-t", "pinged", str(tmp_path),
                 env={**fleet.env, "DOCKER_BUILDKIT": "0"})  # fmt: skip
    assert "1 packets received" in fleet.docker("run", "--rm", "pinged", "cat", "/said").out
    fleet.docker("rmi", "pinged")


def test_network_and_user_namespace_are_one_containers(fleet: Fleet) -> None:
    """Its capabilities hold in its network, and there is nobody else in its user namespace."""
    for name in ("one", "two"):
        fleet.docker("run", "-d", "--name", name, *_on(1), "busybox", "sleep", "600")
    own = {
        name: fleet.docker("exec", name, "readlink", "/proc/self/ns/user").out
        for name in ("one", "two")
    }
    assert own["one"] != own["two"]
    assert fleet.docker("exec", "one", "readlink", "/proc/1/ns/user").out == own["one"]
    fleet.docker("restart", "-t", "0", "one")  # its next one may have the number of the last
    again = fleet.docker("exec", "one", "readlink", "/proc/1/ns/user").out
    assert again == fleet.docker("exec", "one", "readlink", "/proc/self/ns/user").out
    assert again != own["two"]
    script = "ip link add d0 type dummy || ip addr add 10.9.9.9/8 dev eth0 || ip link set eth0 down"
    done = fleet.docker(
        "run", "--rm", "--cap-add", "NET_RAW", "busybox", "sh", "-c", script, code=None
    )
    assert done.code != 0
    assert re.search("Operation not permitted", done.err)


@pytest.mark.parametrize("victim_host", [1, 2])
def test_nobody_speaks_in_the_name_of_another(fleet: Fleet, victim_host: int) -> None:
    fleet.docker("network", "create", "lab")
    for name, host in (("liar", 1), ("victim", victim_host), ("other", 1)):
        fleet.docker(
            "run", "-d", "--name", name, "--network", "lab", *_on(host), "busybox", "sleep", "600"
        )
    pids = {name: fleet.inspect(name)["State"]["Pid"] for name in ("liar", "victim")}
    frames = raw_frames.frames(*(_port(fleet, name) for name in ("liar", "victim", "other")))
    with raw_frames.heard(pids["victim"]) as so_far:
        with raw_frames.sending(pids["liar"], frames, rounds=80):
            until(lambda: HONEST - {"arp-own"} <= so_far())
            fleet.kill_service("network-host1")
            fleet.wait_ready()
        assert so_far() <= HONEST
