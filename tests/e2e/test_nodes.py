"""The hosts as docker's nodes, and what else the fleet says of itself."""

import json

from tests.farm.fleet import Fleet
from tests.farm.tenant import Tenant


def test_the_hosts_are_nodes(fleet: Fleet) -> None:
    rows = fleet.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}}")
    assert rows.out.splitlines() == [f"host{n} Ready Active" for n in (1, 2, 3)]
    about = json.loads(fleet.docker("node", "inspect", "host2").out)[0]
    assert about["Status"]["Addr"].startswith("10.213.")
    assert "host2" in fleet.docker("node", "inspect", "--pretty", "host2").out
    assert fleet.docker("node", "ls", "-q", "--filter", "name=host3").out == "host3"
    assert "not found" in fleet.docker("node", "inspect", "nosuch", code=1).err


def test_a_drained_host_takes_nothing_new_and_labels_choose(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "stays", "--label", "labfleet.constraint=host==host1",
                 "busybox", "sleep", "300")  # fmt: skip
    fleet.docker("node", "update", "--availability", "drain", "host1")
    try:
        assert fleet.docker("exec", "stays", "echo", "on").out == "on"
        refused = fleet.docker("create", "--label", "labfleet.constraint=host==host1", "busybox",
                               code=1).err  # fmt: skip
        assert "drained" in refused
        for number in range(3):
            fleet.docker("create", "--name", f"c{number}", "busybox")
            assert fleet.host_of(f"c{number}") != "host1"
        fleet.docker("node", "update", "--label-add", "row=front", "host3")
        fleet.docker("create", "--name", "front", "--label", "labfleet.constraint=row==front",
                     "busybox")  # fmt: skip
        assert fleet.host_of("front") == "host3"
    finally:
        fleet.docker("node", "update", "--availability", "active", "host1")
        fleet.docker("node", "update", "--label-rm", "row", "host3", code=None)
    fleet.docker("create", "--label", "labfleet.constraint=host==host1", "busybox")


def test_an_update_of_an_old_version_is_refused(
    fleet: Fleet, tenants: tuple[Tenant, Tenant]
) -> None:
    token = fleet.labfleet(
        "token", "create", "--tenant", "operators", "--expires", "5m"
    ).out.strip()
    with tenants[0].http(token) as http:
        node = http.get("/nodes/host2").json()
        index = node["Version"]["Index"]
        for status in (200, 409):
            done = http.post("/nodes/host2/update", params={"version": index}, json=node["Spec"])
            assert done.status_code == status, done.text
        assert http.delete("/nodes/host2").status_code == 501


def test_swarm_is_refused_with_what_to_use_instead(fleet: Fleet) -> None:
    for words, instead in (
        (("service", "ls"), "docker compose"),
        (("swarm", "init"), "labfleet up"),
        (("swarm", "join-token", "worker"), "labfleet up"),
        (("secret", "ls"), "volume"),
        (("config", "ls"), "volume"),
        (("stack", "ls"), "docker compose"),
        (("plugin", "install", "--grant-all-permissions", "some/plugin"), "plugin"),
    ):
        done = fleet.docker(*words, code=1)
        assert instead in done.err, f"{words}: {done.err}"
    assert fleet.docker("plugin", "ls", "-q").out == ""


def test_info_has_a_row_for_each_host(fleet: Fleet, tenants: tuple[Tenant, Tenant]) -> None:
    info = json.loads(fleet.docker("info", "--format", "{{json .}}").out)
    rows = dict(map(tuple, info["DriverStatus"]))
    assert rows["Hosts"] == "3"
    assert all("promised" in rows[f" host{n}"] for n in (1, 2, 3))
    own = json.loads(tenants[0].docker("info", "--format", "{{json .}}").out)
    assert not any("promised" in row[1] for row in own["DriverStatus"])
