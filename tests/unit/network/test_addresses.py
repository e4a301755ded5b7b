"""Addresses of a network."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import network_id, network_record

from labfleet_network.core.addresses import (
    check_asked,
    gateway_mac,
    lowest_free,
    mac_of,
    prefix_len,
    way_out,
)
from labfleet_proto.errors import InvalidRequestError, NoRoomError
from labfleet_proto.networks import InterfaceWish

NETWORK = network_record(subnet="10.100.4.0/29", gateway="10.100.4.1")
ALL = [f"10.100.4.{last}" for last in range(2, 7)]

addresses = st.ip_addresses(v=4).map(str)


def test_a_mac_follows_from_the_address_as_dockers_does() -> None:
    assert mac_of("10.100.4.2") == "02:42:0a:64:04:02"


@given(addresses, addresses)
def test_two_addresses_never_share_a_mac(one: str, other: str) -> None:
    assert (mac_of(one) == mac_of(other)) == (one == other)


@given(addresses)
def test_a_mac_is_local_and_for_one_receiver(address: str) -> None:
    first = int(mac_of(address).partition(":")[0], 16)
    assert first & 0b11 == 0b10


def test_the_gateway_has_the_same_mac_on_every_host() -> None:
    assert gateway_mac(NETWORK) == mac_of("10.100.4.1")


def test_the_prefix_is_the_subnets() -> None:
    assert prefix_len(NETWORK) == 29


def test_addresses_are_given_from_the_lowest_and_never_the_gateway() -> None:
    assert lowest_free(NETWORK, set()) == "10.100.4.2"


def test_a_gap_is_filled_first() -> None:
    assert lowest_free(NETWORK, {"10.100.4.2", "10.100.4.4"}) == "10.100.4.3"


def test_a_gateway_in_the_middle_is_passed_over() -> None:
    network = NETWORK.model_copy(update={"gateway": "10.100.4.3"})
    assert lowest_free(network, {"10.100.4.1", "10.100.4.2"}) == "10.100.4.4"


def test_a_full_network_names_itself_and_its_subnet() -> None:
    with pytest.raises(NoRoomError, match=r"network net1: no address is left in 10\.100\.4\.0/29"):
        lowest_free(NETWORK, set(ALL))


@given(st.sets(st.sampled_from(ALL), max_size=len(ALL) - 1))
def test_a_free_address_can_always_be_asked_for(taken: set[str]) -> None:
    address = lowest_free(NETWORK, taken)
    check_asked(NETWORK, address)
    assert address not in taken
    assert IPv4Address(address) in IPv4Network(NETWORK.subnet)


@pytest.mark.parametrize("address", ALL)
def test_every_host_address_can_be_asked_for(address: str) -> None:
    check_asked(NETWORK, address)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.100.4.8", "is not in network net1's"),
        ("192.0.2.7", "is not in network net1's"),
        ("10.100.4.0", "is not in network net1's"),
        ("10.100.4.7", "is not in network net1's"),
        ("10.100.4.1", "is the gateway of network net1"),
        ("10.100.4.300", "invalid address"),
        ("fd00::1", "invalid address"),
        ("", "invalid address"),
    ],
)
def test_another_address_is_refused_with_the_reason(address: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        check_asked(NETWORK, address)


def test_addresses_come_from_the_range_and_leave_out_what_is_set_aside() -> None:
    network = network_record(
        subnet="172.28.0.0/16",
        gateway="172.28.5.0",
        ip_range="172.28.5.0/29",
        aux_addresses={"router": "172.28.5.1"},
    )
    assert lowest_free(network, {"172.28.5.2"}) == "172.28.5.3"
    with pytest.raises(InvalidRequestError, match="set aside"):
        check_asked(network, "172.28.5.1")
    taken = {f"172.28.5.{number}" for number in range(8)}
    with pytest.raises(NoRoomError, match=r"no address is left in 172\.28\.5\.0/29"):
        lowest_free(network, taken)


def test_the_way_out_is_the_first_that_has_one_or_the_greatest_priority() -> None:
    wishes = [
        InterfaceWish(network=network_id(n), network_name="", names=(), gateway_priority=p)
        for n, p in ((1, 0), (2, 0), (3, 5))
    ]
    closed = network_record(is_internal=True)
    assert way_out(wishes[:2], [network_record(), network_record()]) == 0
    assert way_out(wishes[:2], [closed, network_record()]) == 1
    assert way_out(wishes, [network_record()] * 3) == 2
    assert way_out(wishes[:1], [closed]) is None
