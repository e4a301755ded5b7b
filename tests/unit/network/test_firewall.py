"""The rules as text: their structure, and the order that makes them safe."""

import re

import pytest

from labfleet_network.core.firewall import (
    add_network,
    add_port,
    add_source,
    delete_port,
    delete_source,
    entry_table,
    host_table,
    spoof_table,
)
from labfleet_proto.networks import ADDRESS_POOL, PublishedPort

UNDERLAY = "192.0.2.0/24"
HOST_TEXT = host_table("lf", UNDERLAY)
ENTRY_TEXT = entry_table("lf", "lf-under")
SPOOF_TEXT = spoof_table("lf")
ARP_OWN = "iifname . ether saddr . arp saddr ip @sources iifname . arp saddr ether . arp saddr ip @sources"
WEB = PublishedPort(host_address="0.0.0.0", host_port=8080, protocol="tcp", container_port=80)  # noqa: S104


def chain(text: str, name: str) -> list[str]:
    """Rules of a chain, without its own definition."""
    (body,) = re.findall(rf"chain {name} {{\n(.*?)\n  }}", text, re.DOTALL)
    return [line.strip() for line in body.splitlines()][1:]


def line_of(rules: list[str], rule: str) -> int:
    assert rule in rules
    return rules.index(rule)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (HOST_TEXT, "ip lf-host"),
        (ENTRY_TEXT, "ip lf-entry"),
        (SPOOF_TEXT, "bridge lf-ports"),
    ],
)
def test_a_table_replaces_an_older_one_at_once(text: str, table: str) -> None:
    lines = text.strip().splitlines()
    assert lines[:3] == [f"table {table}", f"delete table {table}", f"table {table} {{"]


@pytest.mark.parametrize("text", [HOST_TEXT, ENTRY_TEXT, SPOOF_TEXT])
def test_every_bracket_closes(text: str) -> None:
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("text", [HOST_TEXT, ENTRY_TEXT, SPOOF_TEXT])
def test_every_set_that_a_rule_asks_is_declared(text: str) -> None:
    asked = set(re.findall(r"@(\w+)", text)) - {"th"}  # the transport header
    assert asked <= set(re.findall(r"(?:set|map) (\w+) {", text))


def test_tables_of_two_fleets_have_their_own_names() -> None:
    assert "lf-host" not in host_table("other", UNDERLAY)


@pytest.mark.parametrize("target", [UNDERLAY, ADDRESS_POOL, "169.254.0.0/16"])
def test_a_container_reaches_no_private_place_by_routing(target: str) -> None:
    assert f"iifname @bridges ip daddr {target} drop" in chain(HOST_TEXT, "forward")


def test_networks_do_not_reach_one_another() -> None:
    assert "iifname @bridges oifname @bridges drop" in chain(HOST_TEXT, "forward")


def test_an_internal_network_has_no_way_out() -> None:
    assert "iifname @bridges iifname != @open_bridges drop" in chain(HOST_TEXT, "forward")


def test_nothing_from_outside_comes_in_but_by_a_published_port() -> None:
    rules = chain(HOST_TEXT, "forward")
    published = line_of(rules, "ct status dnat oifname @bridges accept")
    assert published < line_of(rules, "oifname @bridges drop") == len(rules) - 1


def test_answers_pass_before_any_drop() -> None:
    rules = chain(HOST_TEXT, "forward")
    first_drop = next(number for number, rule in enumerate(rules) if rule.endswith("drop"))
    assert line_of(rules, "ct state established,related accept") < first_drop


def test_segments_are_clamped_to_the_tunnels_size() -> None:
    assert chain(HOST_TEXT, "forward")[0] == "tcp flags syn tcp option maxseg size set rt mtu"


def test_of_the_host_a_container_reaches_dns_and_ping_of_its_gateway_only() -> None:
    assert chain(HOST_TEXT, "input") == [
        "iifname @bridges ct state established,related accept",
        "iifname @bridges fib daddr . iif type local udp dport 53 accept",
        "iifname @bridges fib daddr . iif type local tcp dport 53 accept",
        "iifname @bridges fib daddr . iif type local icmp type echo-request accept",
        "iifname @bridges drop",
    ]


def test_what_leaves_is_masqueraded() -> None:
    rules = chain(HOST_TEXT, "postrouting")
    assert "ip saddr @subnets oifname != @bridges masquerade" in rules


@pytest.mark.parametrize("text", [HOST_TEXT, ENTRY_TEXT], ids=["host", "entry"])
@pytest.mark.parametrize("hook", ["prerouting", "output"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_published_ports_lead_on_from_here_and_from_outside(
    text: str, hook: str, protocol: str
) -> None:
    assert (
        chain(text, hook).count(
            f"fib daddr type local {protocol} dport @{protocol}_any "
            f"dnat ip to {protocol} dport map @{protocol}_to"
        )
        == 1
    )


def test_the_entry_speaks_to_hosts_with_its_own_address() -> None:
    assert chain(ENTRY_TEXT, "postrouting") == ['oifname "lf-under" ct status dnat masquerade']


def test_a_port_sends_only_from_its_own_addresses() -> None:
    assert chain(SPOOF_TEXT, "prerouting") == [
        "iifname != @ports accept",
        f"ether type arp {ARP_OWN} accept",
        "ether type ip udp dport 67 drop",
        "ether type ip iifname . ether saddr . ip saddr @sources accept",
        "ether type != ip6 drop",
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets6 drop",
        "udp sport 547 drop",
        "iifname . ether saddr . ip6 saddr @sources6 accept",
        "ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets6 accept",
        "drop",
    ]


def test_the_host_takes_no_part_in_ipv6() -> None:
    assert chain(SPOOF_TEXT, "input") == [
        f'iifname "lf{kind}*" ether type ip6 drop' for kind in ("v", "x", "g")
    ]


def test_a_port_with_ipv6_speaks_and_answers_for_two_addresses() -> None:
    added = add_source("lf", "lfv1", "02:42:00:00:00:01", "10.100.1.2", "2001:db8::5").splitlines()
    assert added == [
        'add element bridge lf-ports sources { "lfv1" . 02:42:00:00:00:01 . 10.100.1.2 }',
        'add element bridge lf-ports sources6 { "lfv1" . 02:42:00:00:00:01 . 2001:db8::5 }',
        'add element bridge lf-ports targets6 { "lfv1" . 0x20010db8000000000000000000000005 }',
        'add element bridge lf-ports sources6 { "lfv1" . 02:42:00:00:00:01 . fe80::42:ff:fe00:1 }',
        'add element bridge lf-ports targets6 { "lfv1" . 0xfe80000000000000004200fffe000001 }',
        'add element bridge lf-ports ports { "lfv1" }',
    ]


def test_a_port_is_two_elements() -> None:
    assert add_port("lf-host", WEB, "10.100.1.2", 80).splitlines() == [
        "add element ip lf-host tcp_to { 8080 : 10.100.1.2 . 80 }",
        "add element ip lf-host tcp_any { 8080 }",
    ]


def test_a_port_of_udp_is_in_the_maps_of_udp() -> None:
    udp = WEB.model_copy(update={"protocol": "udp"})
    assert "tcp" not in add_port("lf-host", udp, "10.100.1.2", 80)


def test_an_internal_network_is_not_opened() -> None:
    assert "open_bridges" not in add_network("lf-host", "lfb1", "10.100.1.0/24", is_open=False)


def test_an_open_network_is_admitted_and_opened() -> None:
    assert add_network("lf-host", "lfb1", "10.100.1.0/24", is_open=True).splitlines() == [
        'add element ip lf-host bridges { "lfb1" }',
        "add element ip lf-host subnets { 10.100.1.0/24 }",
        'add element ip lf-host open_bridges { "lfb1" }',
    ]


def places(commands: str) -> set[tuple[str, ...]]:
    """Table, set and key of each element."""
    pattern = r"^(?:add|delete) element (\w+ \S+) (\w+) { (.*?)(?: : .*)? }$"
    found = re.findall(pattern, commands, re.MULTILINE)
    assert len(found) == len(commands.splitlines())
    return set(found)


@pytest.mark.parametrize(
    ("added", "deleted"),
    [
        (add_port("lf-host", WEB, "10.100.1.2", 80), delete_port("lf-host", WEB)),
        (
            add_source("lf", "lfv1", "02:42:00:00:00:01", "10.100.1.2"),
            delete_source("lf", "lfv1", "02:42:00:00:00:01", "10.100.1.2"),
        ),
    ],
    ids=["port", "source"],
)
def test_deleting_takes_away_exactly_what_was_added(added: str, deleted: str) -> None:
    assert places(deleted) == places(added)


@pytest.mark.parametrize(
    "commands",
    [
        add_port("lf-host", WEB, "10.100.1.2", 80),
        add_network("lf-host", "lfb1", "10.100.1.0/24", is_open=True),
        add_source("lf", "lfv1", "02:42:00:00:00:01", "10.100.1.2"),
    ],
    ids=["port", "network", "source"],
)
def test_elements_go_into_sets_that_the_tables_declare(commands: str) -> None:
    declared = set(re.findall(r"(?:set|map) (\w+) {", HOST_TEXT + SPOOF_TEXT))
    assert {name for _, name, _ in places(commands)} <= declared
