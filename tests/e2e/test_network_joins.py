"""Networks joined, left and pruned; subnets of one's own choice."""

import json
import subprocess
import urllib.request

from tests.farm.fleet import Fleet, until
from tests.farm.tenant import Tenant

SERVE = "mkdir -p /www && hostname > /www/index.html && exec httpd -f -h /www"


def _ips(fleet: Fleet, name: str) -> str:
    return fleet.docker("exec", name, "ip", "-o", "-4", "addr").out


def _attached(fleet: Fleet, network: str) -> list[str]:
    about = json.loads(fleet.docker("network", "inspect", network).out)[0]
    return sorted(each["Name"] for each in about["Containers"].values())


def _asks(fleet: Fleet, asker: str, name: str) -> str:
    return fleet.docker(
        "exec", asker, "timeout", "3", "wget", "-qO-", f"http://{name}", code=None
    ).out


def test_a_running_container_joins_and_leaves_a_network(fleet: Fleet) -> None:
    fleet.docker("network", "create", "lab")
    fleet.docker("run", "-d", "--name", "web", "--hostname", "web", "--network", "lab",
                 "--label", "labfleet.constraint=host==host1", "busybox", "sh", "-c",
                 SERVE)  # fmt: skip
    fleet.docker("run", "-d", "--name", "late", "--label", "labfleet.constraint=host==host2",
                 "busybox", "sleep", "600")  # fmt: skip
    assert _asks(fleet, "late", "web") == ""
    fleet.docker("network", "connect", "--alias", "tardy", "lab", "late")
    assert _attached(fleet, "lab") == ["late", "web"]
    assert "eth1" in _ips(fleet, "late")
    until(lambda: _asks(fleet, "late", "web") == "web")
    lookup = ("exec", "web", "nslookup", "-type=a", "tardy")
    address = fleet.inspect("late")["NetworkSettings"]["Networks"]["lab"]["IPAddress"]
    until(lambda: address in fleet.docker(*lookup, code=None).out)
    assert address in fleet.docker("exec", "late", "cat", "/etc/hosts").out
    refused = fleet.docker("network", "connect", "lab", "late", code=1)
    assert "endpoint with name late already exists in network lab" in refused.err
    fleet.docker("network", "disconnect", "lab", "late")
    assert "eth1" not in _ips(fleet, "late")
    assert _attached(fleet, "lab") == ["web"]
    until(lambda: address not in fleet.docker(*lookup, code=None).out)
    refused = fleet.docker("network", "disconnect", "lab", "late", code=1)
    assert "is not connected to network lab" in refused.err


def test_what_was_joined_is_there_after_a_restart_of_everything(fleet: Fleet) -> None:
    fleet.docker("network", "create", "lab")
    fleet.docker("run", "-d", "--name", "box", "busybox", "sleep", "600")
    host = fleet.host_of("box")
    fleet.docker("network", "connect", "lab", "box")
    for service in (f"network-{host}", f"runtime-agent-{host}"):
        fleet.kill_service(service)
    fleet.wait_ready()
    fleet.docker("network", "disconnect", "bridge", "box")
    assert "eth0" not in _ips(fleet, "box")
    assert "default via" in fleet.docker("exec", "box", "ip", "route").out
    fleet.docker("network", "connect", "bridge", "box")
    assert sorted(fleet.inspect("box")["NetworkSettings"]["Networks"]) == ["bridge", "lab"]
    fleet.docker("restart", "-t", "0", "box")
    assert sorted(fleet.inspect("box")["NetworkSettings"]["Networks"]) == ["bridge", "lab"]
    assert len(_ips(fleet, "box").splitlines()) == 3


def test_a_stopped_container_joins_when_it_starts(fleet: Fleet) -> None:
    fleet.docker("network", "create", "--subnet", "172.30.0.0/16", "lab")
    fleet.docker("create", "--name", "box", "busybox", "sleep", "600")
    fleet.docker("network", "connect", "--ip", "172.30.7.7", "lab", "box")
    fleet.docker("network", "disconnect", "bridge", "box")
    fleet.docker("start", "box")
    assert "172.30.7.7/16" in _ips(fleet, "box")
    fleet.docker("create", "--name", "other", "busybox", "sleep", "600")
    refused = fleet.docker("network", "connect", "--ip", "10.9.9.9", "lab", "other", code=1)
    assert "no configured subnet contains IP address 10.9.9.9" in refused.err
    fleet.docker("start", "other")
    refused = fleet.docker("network", "connect", "--ip", "172.30.7.7", "lab", "other", code=1)
    assert "Address already in use" in refused.err
    assert list(fleet.inspect("other")["NetworkSettings"]["Networks"]) == ["bridge"]


def test_a_subnet_of_ones_own_choice(fleet: Fleet) -> None:
    """Any, also one that the hosts themselves use: they never route it."""
    underlay = fleet.plan.subnet
    fleet.docker("network", "create", "--subnet", underlay, "mine")
    refused = fleet.docker("network", "create", "--subnet", underlay, "twice", code=1)
    assert "Pool overlaps with other one on this address space" in refused.err
    for number in (1, 2):
        fleet.docker("run", "-d", "--name", f"n{number}", "--hostname", f"n{number}", "-p", "80",
                     "--network", "mine", "--label",
                     f"labfleet.constraint=host==host{number}", "busybox", "sh", "-c",
                     SERVE)  # fmt: skip
    for asker in ("n1", "n2"):
        for target in ("n1", "n2"):
            until(lambda a=asker, t=target: _asks(fleet, a, t) == t)
        port = fleet.docker("port", asker, "80").out.splitlines()[0].rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as page:
            assert page.read().decode().strip() == asker
    base = fleet.plan.choices.port_base
    script = f"echo | timeout 2 nc {fleet.plan.gateway} {base}"
    assert fleet.docker("exec", "n1", "sh", "-c", script, code=None).code != 0
    host = fleet.host_of("n1")
    fleet.kill_service(f"network-{host}")
    fleet.wait_ready()
    until(lambda: _asks(fleet, "n1", "n2") == "n2")


def test_a_network_that_is_gone_leaves_no_link(fleet: Fleet) -> None:
    """A router's way out would keep its route: the next network at the same addresses were cut off."""
    inside = fleet.plan.hosts[0].namespace

    def links() -> set[str]:
        out = subprocess.run(["ip", "-n", inside, "-o", "link"],
                             capture_output=True, text=True, check=True)  # fmt: skip
        return {line.split(": ")[1] for line in out.stdout.splitlines()}

    before = links()
    fleet.docker("network", "create", "--subnet", "172.30.0.0/16", "lab")
    fleet.docker("run", "-d", "--name", "box", "--network", "lab", "-p", "80", "--label",
                 "labfleet.constraint=host==host1", "busybox", "sleep", "600")  # fmt: skip
    assert len(links() - before) == 5  # bridge, tunnel, the router's two ends, the container's
    fleet.docker("rm", "-f", "box")
    fleet.docker("network", "rm", "lab")
    until(lambda: links() <= before)


def test_two_tenants_use_the_same_subnet_on_the_same_hosts(
    fleet: Fleet,  # noqa: ARG001 - empty again afterwards
    tenants: tuple[Tenant, Tenant],
) -> None:
    for each in tenants:
        each.docker("network", "create", "--subnet", "10.77.0.0/24", "lab")
        for name, address, host in (("web", "10.77.0.5", 1), ("ask", "10.77.0.6", 2)):
            each.docker("run", "-d", "--name", name, "--hostname", f"of-{each.name}", "--network",
                        "lab", "--ip", address, "--label", f"labfleet.constraint=host==host{host}",
                        "busybox", "sh", "-c", SERVE)  # fmt: skip
    try:
        for each in tenants:
            for asker, target in (("ask", "web"), ("web", "ask"), ("ask", "10.77.0.5")):
                words = ("exec", asker, "timeout", "3", "wget", "-qO-", f"http://{target}")
                found = until(lambda e=each, w=words: e.docker(*w, code=None).out)
                assert found == f"of-{each.name}"
    finally:
        for each in tenants:
            each.docker("rm", "-f", "web", "ask")
            each.docker("network", "rm", "lab")


def test_all_of_ipam_is_kept_and_served(fleet: Fleet) -> None:
    fleet.docker("network", "create", "--subnet", "132.124.0.0/16", "--ip-range", "132.124.5.0/24",
                 "--gateway", "132.124.5.254", "--aux-address", "router=132.124.5.1", "--internal",
                 "--attachable", "--label", "a=b", "--opt", "com.docker.network.driver.mtu=1400",
                 "mine")  # fmt: skip
    about = json.loads(fleet.docker("network", "inspect", "mine").out)[0]
    assert about["IPAM"]["Config"] == [
        {
            "Subnet": "132.124.0.0/16",
            "IPRange": "132.124.5.0/24",
            "Gateway": "132.124.5.254",
            "AuxiliaryAddresses": {"router": "132.124.5.1"},
        }
    ]
    assert (about["Internal"], about["Attachable"], about["Labels"]) == (True, True, {"a": "b"})
    assert about["Options"] == {"com.docker.network.driver.mtu": "1400"}
    out = fleet.docker("run", "--rm", "--network", "mine", "busybox", "ip", "-o", "addr").out
    assert "132.124.5.2/16" in out or "132.124.5.0/16" in out


def test_one_container_in_the_network_of_another(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "web", "--hostname", "web", "busybox", "sh", "-c", SERVE)
    fleet.docker("run", "-d", "--name", "side", "--network", "container:web", "busybox", "sleep",
                 "600")  # fmt: skip
    assert fleet.host_of("side") == fleet.host_of("web")
    until(lambda: _asks(fleet, "side", "127.0.0.1") == "web")
    assert fleet.docker("exec", "side", "hostname").out == "web"
    assert _ips(fleet, "side") == _ips(fleet, "web")
    web = fleet.inspect("web")["Id"]
    assert fleet.inspect("side")["HostConfig"]["NetworkMode"] == f"container:{web}"
    assert (
        "sharing network namespace"
        in fleet.docker("network", "connect", "bridge", "side", code=1).err
    )
    fleet.docker("rm", "-f", "web")
    until(lambda: "eth0" not in _ips(fleet, "side"))
    refused = fleet.docker("restart", "-t", "0", "side", code=1)
    assert "non running container" in refused.err
    refused = fleet.docker("create", "--network", "container:nosuch", "busybox", code=1)
    assert "No such container: nosuch" in refused.err


def test_prune_and_predefined_networks(fleet: Fleet) -> None:
    fleet.docker("network", "create", "--label", "keep=1", "one")
    fleet.docker("network", "create", "two words")
    fleet.docker("network", "create", "used")
    fleet.docker("run", "-d", "--network", "used", "busybox", "sleep", "600")
    listed = fleet.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").out
    assert {"bridge bridge local", "host host local", "none null local"} <= set(listed.split("\n"))
    for name in ("bridge", "host", "none"):
        assert "pre-defined" in fleet.docker("network", "rm", name, code=1).err
    assert fleet.docker("network", "prune", "-f", "--filter", "until=1h").out == ""
    out = fleet.docker("network", "prune", "-f", "--filter", "label!=keep").out
    assert "two words" in out
    assert "one" not in out
    assert "used" in fleet.docker("network", "ls", "-q", "--format", "{{.Name}}").out
    assert "one" in fleet.docker("network", "prune", "-f").out
