"""The small files that a container is given: its hosts file and its resolver's settings."""

from typing import Any

import pytest
from tests.unit.proto.records import container_record, container_spec, network_id

from labfleet_proto.containers import NetworkAttachment
from labfleet_proto.networks import Endpoint, InterfaceReady
from labfleet_runtime_agent.core import name_files


def interface(*addresses: str, dns: tuple[str, ...] = ("10.100.1.1",)) -> InterfaceReady:
    endpoints = tuple(
        Endpoint(
            network=network_id(number),
            network_name=f"net{number}",
            address=address,
            prefix_len=24,
            mac="02:42:0a:64:01:02",
            gateway="10.100.1.1",
            interface=f"eth{number}",
        )
        for number, address in enumerate(addresses)
    )
    return InterfaceReady(netns_path="/run/netns/c", endpoints=endpoints, dns_servers=dns)


def joined(*names: str) -> tuple[NetworkAttachment, ...]:
    return tuple(
        NetworkAttachment(network_id=network_id(number), network_name=name)
        for number, name in enumerate(names)
    )


def hosts(*addresses: str, **spec: Any) -> list[str]:
    record = container_record(spec=container_spec(**spec))
    return name_files.hosts(record.spec, interface(*addresses).endpoints).splitlines()


def resolver(given: InterfaceReady, **spec: Any) -> list[str]:
    return name_files.resolv_conf(container_spec(**spec), given).splitlines()


def test_localhost_comes_first() -> None:
    assert hosts("10.100.1.2")[:2] == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
    ]


def test_the_own_name_has_the_own_address_in_every_network() -> None:
    assert hosts("10.100.1.2", "10.100.2.2")[-2:] == ["10.100.1.2\tweb", "10.100.2.2\tweb"]


def test_the_whole_name_comes_before_the_short_one() -> None:
    assert hosts("10.100.1.2", domainname="lab")[-1] == "10.100.1.2\tweb.lab web"


def test_a_container_without_network_still_has_localhost() -> None:
    assert [line for line in hosts() if "web" in line] == []
    assert "127.0.0.1\tlocalhost" in hosts()


@pytest.mark.parametrize(
    ("extra", "line"),
    [("db:192.0.2.1", "192.0.2.1\tdb"), ("six:2001:db8::1", "2001:db8::1\tsix")],
)
def test_a_further_host_is_added(extra: str, line: str) -> None:
    assert line in hosts("10.100.1.2", extra_hosts=(extra,))


def test_names_are_asked_at_the_networks_server() -> None:
    assert resolver(interface("10.100.1.2")) == ["nameserver 10.100.1.1", "options ndots:0"]


@pytest.mark.parametrize(
    ("networks", "server"),
    [
        ((), "192.0.2.53"),
        (("bridge",), "192.0.2.53"),
        (("lab",), "10.100.1.1"),
        (("bridge", "lab"), "10.100.1.1"),
    ],
)
def test_a_server_that_the_user_named_replaces_ours_where_there_are_no_names(
    networks: tuple[str, ...], server: str
) -> None:
    lines = resolver(interface("10.100.1.2"), dns=("192.0.2.53",), networks=joined(*networks))
    assert lines[0] == f"nameserver {server}"


def test_search_domains_are_one_line() -> None:
    assert "search lab example.org" in resolver(interface(), dns_search=("lab", "example.org"))


def test_a_file_ends_with_a_line_feed() -> None:
    given = interface("10.100.1.2")
    assert name_files.hosts(container_spec(), given.endpoints).endswith("\n")
    assert name_files.resolv_conf(container_spec(), given).endswith("\n")


def test_the_hosts_file_follows_the_networks_and_keeps_what_the_container_wrote() -> None:
    old, new = (
        interface("10.1.0.2", "10.2.0.2").endpoints,
        interface("10.2.0.2", "10.3.0.2").endpoints,
    )
    spec = container_spec(hostname="web")
    text = name_files.hosts(spec, old) + "192.0.2.1\tmine\n"
    lines = name_files.changed_hosts(text, spec, old, new).splitlines()
    assert "10.1.0.2\tweb" not in lines
    assert lines[-3:] == ["10.2.0.2\tweb", "192.0.2.1\tmine", "10.3.0.2\tweb"]


def test_the_resolvers_follow_the_networks_unless_they_were_chosen() -> None:
    spec = container_spec()
    text = name_files.resolv_conf(spec, interface(dns=("10.1.0.1",))) + "# mine\n"
    after = name_files.changed_resolv_conf(text, spec, interface(dns=("10.2.0.1",)))
    assert after.splitlines() == ["nameserver 10.2.0.1", "options ndots:0", "# mine"]
    chosen = container_spec(dns=("192.0.2.53",), networks=joined("bridge"))
    text = name_files.resolv_conf(chosen, interface())
    assert name_files.changed_resolv_conf(text, chosen, interface()) == text
    met = container_spec(dns=("192.0.2.53",), networks=joined("bridge", "lab"))
    after = name_files.changed_resolv_conf(text, met, interface(dns=("10.2.0.1",)))
    assert after.splitlines()[0] == "nameserver 10.2.0.1"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "options ndots:0"),
        (("timeout:1",), "options ndots:0 timeout:1"),
        (("ndots:2",), "options ndots:2"),
    ],
)
def test_options_of_the_resolver(options: tuple[str, ...], line: str) -> None:
    assert resolver(interface(), dns_options=options)[-1] == line
