"""Networks across hosts, names, published ports."""

import socket
import subprocess
import sys
import urllib.request

from tests.farm.fleet import Fleet, until

RESOLVER = """
import socket, sys, dns.message, dns.rrset
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    data, asker = s.recvfrom(4096)
    query = dns.message.from_wire(data)
    said = dns.message.make_response(query)
    said.answer.append(dns.rrset.from_text(query.question[0].name, 9, "IN", "A", "192.0.2.77"))
    s.sendto(said.to_wire(), asker)
    print(asker[0], flush=True)
"""
"""Knows one address for every name, and prints who asks."""
SERVE = "mkdir -p /www && hostname > /www/index.html && exec httpd -f -h /www"


def _fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as answer:
        return answer.read().decode().strip()


def test_by_name_from_every_host(fleet: Fleet) -> None:
    fleet.docker("network", "create", "class")
    for number in range(4):
        fleet.docker("run", "-d", "--name", f"n{number}", "--hostname", f"h{number}", "--network",
                     "class", "busybox", "sh", "-c", SERVE)  # fmt: skip
    hosts = {fleet.host_of(f"n{number}") for number in range(4)}
    assert hosts == {"host1", "host2", "host3"}
    for asker in range(4):
        for target in range(4):
            out = until(
                lambda a=asker, t=target: (
                    fleet.docker(
                        "exec", f"n{a}", "wget", "-qO-", f"http://n{t}", code=None, timeout_s=20
                    ).out
                )
            )
            assert out == f"h{target}"


def test_alias_and_reverse_lookup(fleet: Fleet) -> None:
    fleet.docker("network", "create", "class")
    fleet.docker("run", "-d", "--name", "db", "--network", "class", "--network-alias", "store",
                 "busybox", "sleep", "600")  # fmt: skip
    fleet.docker("run", "-d", "--name", "ask", "--network", "class", "busybox", "sleep", "600")
    address = fleet.inspect("db")["NetworkSettings"]["Networks"]["class"]["IPAddress"]
    for name in ("db", "store", "db.class"):
        answer = until(
            lambda n=name: fleet.docker("exec", "ask", "nslookup", "-type=a", n, code=None).out
        )
        assert address in str(answer)


def test_servers_of_ones_own_are_asked_for_what_is_no_name_here(fleet: Fleet) -> None:
    """The server is a container's; the question comes from the asker's own namespace."""
    fleet.docker("network", "create", "class")
    for name in ("dns", "db"):
        fleet.docker("run", "-d", "--name", name, "--network", "class", "busybox", "sleep", "600")
    about = fleet.inspect("dns")
    server = about["NetworkSettings"]["Networks"]["class"]["IPAddress"]
    argv = ["nsenter", "-t", str(about["State"]["Pid"]), "-n", sys.executable, "-c", RESOLVER]
    with subprocess.Popen([*argv, server], stdout=subprocess.PIPE, text=True) as resolver:
        try:
            assert resolver.stdout is not None
            assert resolver.stdout.readline() == "ready\n"
            fleet.docker("run", "-d", "--name", "ask", "--network", "class", "--dns", server,
                         "busybox", "sleep", "600")  # fmt: skip
            ask = ("exec", "ask", "nslookup", "-type=a")
            assert "192.0.2.77" in fleet.docker(*ask, "lab.example").out
            own = fleet.inspect("ask")["NetworkSettings"]["Networks"]["class"]["IPAddress"]
            assert resolver.stdout.readline() == f"{own}\n"
            address = fleet.inspect("db")["NetworkSettings"]["Networks"]["class"]["IPAddress"]
            assert until(lambda: address in fleet.docker(*ask, "db", code=None).out)
        finally:
            resolver.kill()


def test_networks_are_apart(fleet: Fleet) -> None:
    for name in ("red", "blue"):
        fleet.docker("network", "create", name)
    fleet.docker("run", "-d", "--name", "server", "--network", "red", "busybox", "sh", "-c", SERVE)
    address = fleet.inspect("server")["NetworkSettings"]["Networks"]["red"]["IPAddress"]
    host = fleet.host_of("server")
    fleet.docker("run", "-d", "--name", "same", "--network", "blue", "--label",
                 f"labfleet.constraint=host=={host}", "busybox", "sleep", "600")  # fmt: skip
    fleet.docker("run", "-d", "--name", "other", "--network", "blue", "--label",
                 f"labfleet.constraint=host!={host}", "busybox", "sleep", "600")  # fmt: skip
    for asker in ("same", "other"):
        script = f"echo | timeout 2 nc {address} 80"
        assert fleet.docker("exec", asker, "sh", "-c", script, code=None).code != 0
        assert fleet.docker("exec", asker, "nslookup", "server", code=None).code != 0


def test_a_container_cannot_reach_the_control_plane(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "spy", "busybox", "sleep", "600")
    base = fleet.plan.choices.port_base
    for address, port in (
        (fleet.plan.gateway, base),
        (fleet.plan.gateway, base + 2),
        (fleet.plan.hosts[0].address, base + 40),
        (fleet.plan.hosts[1].address, base + 20),
    ):
        script = f"echo | timeout 2 nc {address} {port}"
        assert fleet.docker("exec", "spy", "sh", "-c", script, code=None).code != 0, (address, port)


def test_published_port_leads_to_the_container_wherever_it_is(fleet: Fleet) -> None:
    for number in (1, 2, 3):
        name = f"web{number}"
        fleet.docker("run", "-d", "--name", name, "--hostname", name, "-p", "80", "--label",
                     f"labfleet.constraint=host==host{number}", "busybox", "sh", "-c",
                     SERVE)  # fmt: skip
        port = int(fleet.docker("port", name, "80").out.rpartition(":")[2])
        assert until(lambda p=port: _try(p)) == name
        fleet.docker("rm", "-f", name)
        until(lambda p=port: not _try(p))


def _try(port: int) -> str:
    try:
        return _fetch(port)
    except OSError:
        return ""


def test_a_port_in_use_is_refused_and_nothing_stays(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "a1", "-p", "18080:80", "busybox", "sh", "-c", SERVE)
    done = fleet.docker("run", "-d", "--name", "a2", "-p", "18080:80", "busybox", "true", code=125)
    assert "port is already allocated" in done.err
    fleet.docker("rm", "-f", "a1")
    fleet.docker("start", "a2")
    with socket.create_server(("127.0.0.1", 18081)):
        done = fleet.docker("run", "-p", "18081:80", "busybox", "true", code=125)
        assert "18081" in done.err


def test_network_commands(fleet: Fleet) -> None:
    network = fleet.docker("network", "create", "--label", "a=b", "lab").out
    assert "lab" in fleet.docker("network", "ls").out
    assert "already exists" in fleet.docker("network", "create", "lab", code=1).err
    fleet.docker("run", "-d", "--name", "user", "--network", "lab", "busybox", "sleep", "600")
    assert "user" in fleet.docker("network", "inspect", network[:12]).out
    assert "active endpoints" in fleet.docker("network", "rm", "lab", code=1).err
    fleet.docker("rm", "-f", "user")
    fleet.docker("network", "rm", "lab")
    assert "not found" in fleet.docker("network", "inspect", "lab", code=1).err
    assert "pre-defined" in fleet.docker("network", "rm", "bridge", code=1).err


def test_no_network(fleet: Fleet) -> None:
    out = fleet.docker("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link").out
    assert len(out.splitlines()) == 1
    assert "lo" in out


def test_internal_network_has_no_way_out(fleet: Fleet) -> None:
    fleet.docker("network", "create", "--internal", "closed")
    out = fleet.docker("run", "--rm", "--network", "closed", "busybox", "ip", "route").out
    assert "default" not in out
