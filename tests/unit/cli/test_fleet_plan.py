"""The plan: everything follows from the name, and two fleets live side by side."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_cli.fleet_places import (
    DEFAULT_FLEET,
    free_place,
    near_underlays,
    port_bases,
    tag_of,
    underlays,
)
from labfleet_cli.fleet_plan import (
    FIRST_UID,
    MOST_HOSTS,
    UID_SLOTS,
    UIDS_PER_SLOT,
    Choices,
    FleetPlan,
)

LONGEST_INTERFACE = 15
"""IFNAMSIZ without its NUL."""

names = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)


def plan(name: str = DEFAULT_FLEET, hosts: int = 3, **fields: object) -> FleetPlan:
    choices = Choices(
        name=name,
        hosts=hosts,
        port_base=next(port_bases(name)),
        underlay=next(underlays(name)),
        tcp="",
        score="spread",
        nats_token="t" * 8,
        data_key="k" * 8,
    )
    return FleetPlan(replace(choices, **fields), 16 << 30)  # type: ignore[arg-type]


def ports(fleet: FleetPlan) -> set[int]:
    """Every port that a process of the fleet is told."""
    told = {
        int(value)
        for child in fleet.children()
        for key, value in child.env.items()
        if key.endswith("_PORT")
    }
    return (
        told
        | {fleet.registry_port}
        | {int(p) for p in re.findall(r":(\d+)\"", fleet.nats_config())}
    )


def uids(fleet: FleetPlan) -> Iterator[range]:
    for host in fleet.hosts:
        yield range(host.uid_base, host.uid_base + UID_SLOTS * UIDS_PER_SLOT)


def test_the_same_name_gives_the_same_plan() -> None:
    assert plan("ann") == plan("ann")
    assert plan("ann").children() == plan("ann").children()


PAIRS = list(combinations([DEFAULT_FLEET, "ann", "bob", "eve", "lab"], 2))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_fleets_share_nothing(one: str, other: str) -> None:
    first, second = plan(one, MOST_HOSTS), plan(other, MOST_HOSTS)
    assert not ports(first) & ports(second)
    assert first.tag != second.tag
    assert first.subnet != second.subnet
    assert first.state_dir != second.state_dir
    assert first.run_dir != second.run_dir
    for name in ("namespace", "link", "mac", "cgroup_parent"):
        ours = {getattr(host, name) for host in first.hosts}
        assert not ours & {getattr(host, name) for host in second.hosts}, name
    for a in uids(first):
        for b in uids(second):
            assert a.stop <= b.start or b.stop <= a.start


def test_hosts_of_a_fleet_share_nothing() -> None:
    hosts = plan(hosts=MOST_HOSTS).hosts
    for name in ("id", "namespace", "link", "address", "mac", "uid_base", "cgroup_parent"):
        assert len({getattr(host, name) for host in hosts}) == MOST_HOSTS, name
    for a, b in combinations(uids(plan(hosts=MOST_HOSTS)), 2):
        assert a.stop <= b.start or b.stop <= a.start


@given(names)
def test_kernel_names_fit_into_an_interfaces_name(name: str) -> None:
    fleet = plan(name, MOST_HOSTS)
    for interface in (fleet.bridge, *(host.link for host in fleet.hosts)):
        assert len(interface) <= LONGEST_INTERFACE
    assert re.fullmatch(r"lf[0-9a-z]{0,4}", tag_of(name))


@given(names)
def test_numbers_stay_in_their_ranges(name: str) -> None:
    fleet = plan(name, MOST_HOSTS)
    assert all(1024 <= port <= 32_767 for port in ports(fleet))
    assert 0 <= fleet.choices.underlay <= 254
    assert all(each.start >= FIRST_UID and each.stop < 1 << 31 for each in uids(fleet))


@given(names.filter(lambda name: name != DEFAULT_FLEET))
def test_only_the_default_fleet_has_the_default_places(name: str) -> None:
    assert tag_of(name) != tag_of(DEFAULT_FLEET)
    assert next(port_bases(name)) != next(port_bases(DEFAULT_FLEET))
    assert next(underlays(name)) != next(underlays(DEFAULT_FLEET))


def test_the_ports_of_a_fleet_lie_within_its_place() -> None:
    fleet = plan("ann", MOST_HOSTS)
    base = fleet.choices.port_base
    assert {port - base for port in ports(fleet)} <= set(range(50))


def test_processes_of_one_namespace_have_ports_of_their_own() -> None:
    taken = [
        (child.namespace, value)
        for child in plan(hosts=MOST_HOSTS).children()
        for key, value in child.env.items()
        if key.endswith("_PORT")
    ]
    assert len(set(taken)) == len(taken)


def test_every_process_has_a_name_of_its_own() -> None:
    children = plan(hosts=3).children()
    assert children[0].name == "nats"
    assert len({child.name for child in children}) == len(children) == 1 + 4 + 2 * 3


def test_every_host_has_an_agent_and_a_network_in_its_namespace() -> None:
    fleet = plan(hosts=2)
    for host in fleet.hosts:
        own = {child.name for child in fleet.children() if child.namespace == host.namespace}
        assert own == {f"runtime-agent-{host.id}", f"network-{host.id}"}


def test_all_that_is_started_is_expected_to_answer() -> None:
    fleet = plan(hosts=3)
    assert len(fleet.expected()) == len(fleet.children()) - 1  # nats answers no pings
    assert ("network", "entry") in fleet.expected()
    assert ("runtime-agent", "host3") in fleet.expected()


def test_memory_is_shared_evenly_and_never_below_the_least() -> None:
    assert plan(hosts=2).memory_share_bytes == (14 << 30) // 2
    assert FleetPlan(plan(hosts=12).choices, 1 << 30).memory_share_bytes == 512 << 20


def test_a_tcp_listener_is_there_only_when_chosen() -> None:
    def settings(fleet: FleetPlan) -> dict[str, str]:
        return next(child.env for child in fleet.children() if child.name == "api")

    assert "LABFLEET_API_TCP_ADDRESS" not in settings(plan())
    chosen = settings(plan(tcp="127.0.0.1:2375"))
    assert chosen["LABFLEET_API_TCP_ADDRESS"] == "127.0.0.1"
    assert chosen["LABFLEET_API_TCP_PORT"] == "2375"


def test_labels_go_to_their_host_only() -> None:
    fleet = plan(hosts=2, labels=("host1.zone=a", "host1.disk=x=y", "host2.zone=b"))
    found = {
        child.name: json.loads(child.env["LABFLEET_RUNTIME_AGENT_LABELS"])
        for child in fleet.children()
        if child.name.startswith("runtime-agent")
    }
    assert found == {
        "runtime-agent-host1": {"zone": "a", "disk": "x=y"},
        "runtime-agent-host2": {"zone": "b"},
    }


@pytest.mark.parametrize("value", ['a"b', "a\\b", "ü"])
def test_labels_may_hold_any_text(value: str) -> None:
    fleet = plan(hosts=1, labels=(f"host1.note={value}",))
    child = next(each for each in fleet.children() if each.name == "runtime-agent-host1")
    assert json.loads(child.env["LABFLEET_RUNTIME_AGENT_LABELS"]) == {"note": value}


def test_state_and_sockets_are_below_the_fleets_name() -> None:
    fleet = plan("ann")
    assert fleet.state_dir == Path("/var/lib/ann")
    assert fleet.socket == Path("/run/ann/docker.sock")
    for child in fleet.children():
        for key, value in child.env.items():
            if key.endswith(("_STATE_DIR", "_RUN_DIR")):
                assert Path(value).is_relative_to(
                    fleet.state_dir if key.endswith("_STATE_DIR") else fleet.run_dir
                ), key


def test_the_bus_flushes_what_it_acknowledges_and_asks_for_the_token() -> None:
    config = plan().nats_config()
    assert "sync_interval: always" in config
    assert 'token: "tttttttt"' in config


def test_a_place_that_another_fleet_has_is_passed_over() -> None:
    best, second = (list(port_bases("x"))[n] for n in (0, 1))
    assert free_place(port_bases("x"), set()) == best
    assert free_place(port_bases("x"), {best}) == second
    assert free_place(port_bases("x"), set(port_bases("x"))) == best


def test_fleets_side_by_side_share_no_user_ids_and_no_published_ports() -> None:
    first = free_place(underlays("a"), set())
    second = free_place(underlays("a"), near_underlays({first}))
    assert first % 10 != second % 10
    one, other = (plan("a", underlay=number).published for number in (first, second))
    assert not set(one) & set(other)
    for each in (one, other):
        assert not set(each) & set(plan().published)
        assert each.stop <= 65_536
