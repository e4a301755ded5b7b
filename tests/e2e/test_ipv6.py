"""IPv6 in networks: addresses, names and traffic between hosts, and nobody in the name of another."""

import json
from ipaddress import ip_address

from tests.farm import raw_frames
from tests.farm.fleet import Fleet, until, until_clean
from tests.farm.tenant import Tenant

SERVE = "mkdir -p /www && hostname > /www/index.html && exec httpd -f -h /www"
SUBNET = "2001:db8:1::/64"


def _run(fleet: Fleet, name: str, host: int, *words: str) -> dict:
    """Run a web server in the network `lab` on a host; what inspect says of it there."""
    fleet.docker("run", "-d", "--name", name, "--hostname", name, "--network", "lab", "--cap-add",
                 "NET_RAW", "--label", f"labfleet.constraint=host==host{host}", *words, "busybox",
                 "sh", "-c", SERVE)  # fmt: skip
    return _place(fleet, name)


def _place(fleet: Fleet, name: str) -> dict:
    return fleet.inspect(name)["NetworkSettings"]["Networks"]["lab"]


def _asks(fleet: Fleet, asker: str, address: str) -> str:
    words = ("exec", asker, "timeout", "3", "wget", "-qO-", f"http://[{address}]")
    return fleet.docker(*words, code=None).out


def test_addresses_names_and_traffic_over_hosts(fleet: Fleet) -> None:
    fleet.docker("network", "create", "--ipv6", "--subnet", SUBNET, "--gateway", "2001:db8:1::ff",
                 "lab")  # fmt: skip
    about = json.loads(fleet.docker("network", "inspect", "lab").out)[0]
    assert about["EnableIPv6"] is True
    assert about["IPAM"]["Config"][1] == {"Subnet": SUBNET, "Gateway": "2001:db8:1::ff"}
    found = {name: _run(fleet, name, number) for number, name in ((1, "n1"), (2, "n2"))}
    found["n3"] = _run(fleet, "n3", 2, "--ip6", "2001:db8:1::77")
    assert found["n3"]["IPAMConfig"] == {"IPv6Address": "2001:db8:1::77"}
    six = {name: place["GlobalIPv6Address"] for name, place in found.items()}
    assert six == {"n1": "2001:db8:1::1", "n2": "2001:db8:1::2", "n3": "2001:db8:1::77"}
    assert {place["GlobalIPv6PrefixLen"] for place in found.values()} == {64}
    assert {place["IPv6Gateway"] for place in found.values()} == {"2001:db8:1::ff"}
    members = json.loads(fleet.docker("network", "inspect", "lab").out)[0]["Containers"].values()
    assert {each["IPv6Address"] for each in members} == {f"{each}/64" for each in six.values()}
    for asker in six:
        for target, address in six.items():
            assert until(lambda a=asker, to=address: _asks(fleet, a, to)) == target
    ping = ("exec", "n1", "ping", "-6", "-c", "1", "-W", "2")
    assert "1 packets received" in fleet.docker(*ping, "2001:db8:1::ff").out
    assert fleet.docker(*ping, "2001:db8:ffff::1", code=1).out
    own = fleet.docker("exec", "n2", "ip", "-6", "-o", "addr", "show", "dev", "eth0").out
    local = next(word for word in own.split() if word.startswith("fe80")).partition("/")[0]
    assert "1 packets received" in fleet.docker(*ping, f"{local}%eth0").out
    words, pointer = ("exec", "n1", "nslookup"), ip_address(six["n3"]).reverse_pointer
    until(lambda: six["n3"] in fleet.docker(*words, "-type=aaaa", "n3", code=None).out)
    assert found["n3"]["IPAddress"] in fleet.docker(*words, "-type=a", "n3", code=None).out
    assert "n3.lab" in fleet.docker(*words, "-type=ptr", pointer, code=None).out
    assert "2001:db8:1::77\tn3" in fleet.docker("exec", "n3", "cat", "/etc/hosts").out
    fleet.kill_service("network-host1")
    fleet.kill_service("network-host2")
    fleet.wait_ready()
    assert until(lambda: _asks(fleet, "n1", "2001:db8:1::77")) == "n3"
    fleet.docker("restart", "-t", "0", "n3")
    assert until(lambda: _asks(fleet, "n1", "2001:db8:1::77")) == "n3"
    until_clean(fleet)


def test_joins_and_refusals(fleet: Fleet) -> None:
    fleet.docker("network", "create", "--ipv6", "--subnet", SUBNET, "--subnet", "172.31.9.0/24",
                 "lab")  # fmt: skip
    refused = fleet.docker(
        "network", "create", "--ipv6", "--subnet", "2001:db8::/32", "twice", code=1
    )
    assert "Pool overlaps with other one on this address space" in refused.err
    fleet.docker("run", "-d", "--name", "box", "busybox", "sleep", "600")
    assert "inet6" not in fleet.docker("exec", "box", "ip", "addr").out
    fleet.docker("network", "connect", "--ip6", "2001:db8:1::abcd", "lab", "box")
    assert _place(fleet, "box")["GlobalIPv6Address"] == "2001:db8:1::abcd"
    assert "2001:db8:1::abcd/64" in fleet.docker("exec", "box", "ip", "-6", "addr").out
    refused = fleet.docker(
        "run", "--network", "lab", "--ip6", "2001:db8:1::abcd", "busybox", code=125
    )
    assert "Address already in use" in refused.err
    refused = fleet.docker("run", "--network", "lab", "--ip6", "2001:db8:2::1", "busybox", code=125)
    assert "no configured subnet" in refused.err
    fleet.docker("network", "disconnect", "bridge", "box")
    assert "default via 2001:db8:1::1" in fleet.docker("exec", "box", "ip", "-6", "route").out
    fleet.docker("network", "disconnect", "lab", "box")
    assert "2001" not in fleet.docker("exec", "box", "ip", "-6", "addr").out
    fleet.docker("network", "connect", "lab", "box")
    assert _place(fleet, "box")["GlobalIPv6Address"] == "2001:db8:1::2"
    fleet.docker("rm", "-f", "box")
    fleet.docker("network", "rm", "lab")
    fleet.docker("network", "create", "--ipv6", "lab")
    place = _run(fleet, "any", 1)
    assert place["GlobalIPv6Address"].startswith("fd")


def test_two_tenants_have_the_same_addresses(
    fleet: Fleet,  # noqa: ARG001 - empty again afterwards
    tenants: tuple[Tenant, Tenant],
) -> None:
    for each in tenants:
        each.docker("network", "create", "--ipv6", "--subnet", SUBNET, "lab")
        for name, address, host in (("web", "2001:db8:1::5", 1), ("ask", "2001:db8:1::6", 2)):
            each.docker("run", "-d", "--name", name, "--hostname", f"of-{each.name}", "--network",
                        "lab", "--ip6", address, "--label", f"labfleet.constraint=host==host{host}",
                        "busybox", "sh", "-c", SERVE)  # fmt: skip
    try:
        for each in tenants:
            words = ("exec", "ask", "timeout", "3", "wget", "-qO-", "http://[2001:db8:1::5]")
            assert until(lambda e=each, w=words: e.docker(*w, code=None).out) == f"of-{each.name}"
    finally:
        for each in tenants:
            each.docker("rm", "-f", "web", "ask")
            each.docker("network", "rm", "lab")


def test_nobody_speaks_ipv6_in_the_name_of_another(fleet: Fleet) -> None:
    fleet.docker("network", "create", "--ipv6", "--subnet", SUBNET, "lab")
    ports = {}
    for name, host in (("liar", 1), ("near", 1), ("far", 2)):
        place = _run(fleet, name, host)
        ports[name] = {"mac": place["MacAddress"], "ip": place["GlobalIPv6Address"]}
    pids = {name: fleet.inspect(name)["State"]["Pid"] for name in ports}
    for victim, other in (("near", "far"), ("far", "near")):
        frames = raw_frames.frames6(ports["liar"], ports[victim], ports[other])
        with raw_frames.heard(pids[victim]) as so_far:
            with raw_frames.sending(pids["liar"], frames, rounds=5) as sender:
                assert sender.wait(20) == 0
                until(lambda heard=so_far: {"own", "na-own"} <= heard())
            assert so_far() == {"own", "na-own"}
    assert until(lambda: _asks(fleet, "near", ports["far"]["ip"])) == "far"
