"""IPv6 addresses of a network, and the places of a container that has them."""

from itertools import count

import pytest
from tests.unit.proto.records import address_record, network_record

from labfleet_network.core import addresses as rules
from labfleet_network.core.answers import Directory
from labfleet_network.service.addresses import Claim
from labfleet_network.service.places import Place, endpoint, places
from labfleet_proto.buckets import address_key
from labfleet_proto.errors import InvalidRequestError, NoRoomError
from labfleet_proto.networks import AddressPool, InterfaceWish

LAB = AddressPool(subnet="2001:db8:1::/64", gateway="2001:db8:1::1")
NETWORK = network_record(ipv6=LAB, has_ipv6=True)
FOUR = address_record("10.100.1.5", interface="eth0")
SIX = FOUR.model_copy(update={"address": "2001:db8:1::5"})


def test_addresses_are_given_from_the_lowest_and_never_the_gateway() -> None:
    assert rules.lowest_free6(NETWORK, LAB, {"10.100.1.2"}) == "2001:db8:1::2"
    assert rules.lowest_free6(NETWORK, LAB, {"2001:db8:1::2"}) == "2001:db8:1::3"


def test_of_a_range_only_its_own() -> None:
    pool = LAB.model_copy(update={"ip_range": "2001:db8:1::10/126"})
    taken: set[str] = set()
    for last in ("10", "11", "12", "13"):
        assert rules.lowest_free6(NETWORK, pool, taken) == f"2001:db8:1::{last}"
        taken.add(f"2001:db8:1::{last}")
    with pytest.raises(NoRoomError, match="no address is left"):
        rules.lowest_free6(NETWORK, pool, taken)


@pytest.mark.parametrize("text", ["x", "2001:db8:2::1", "2001:db8:1::", "2001:db8:1::1"])
def test_an_address_that_cannot_be_had(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        rules.check_asked6(NETWORK, LAB, text)


def test_the_kernels_own_address_follows_from_the_mac() -> None:
    assert rules.link_local6("02:42:0a:64:01:02") == "fe80::42:aff:fe64:102"


def test_a_key_has_no_colon() -> None:
    assert address_key(NETWORK.id, "2001:db8::5") == f"{NETWORK.id}.2001=db8==5"


def test_two_addresses_are_one_place() -> None:
    claims = [
        Claim(address_key(each.network, each.address), number, each)
        for number, each in zip(count(), (SIX, FOUR), strict=False)
    ]
    assert places(claims) == [Place(FOUR, "2001:db8:1::5")]
    assert places(claims[1:]) == [Place(FOUR)]


def test_an_endpoint_with_and_without() -> None:
    wish = InterfaceWish(network=NETWORK.id, network_name="lab", names=())
    said = endpoint(wish, NETWORK, Place(FOUR, "2001:db8:1::5"))
    assert (said.address6, said.prefix_len6, said.gateway6) == (
        "2001:db8:1::5",
        64,
        "2001:db8:1::1",
    )
    said = endpoint(wish, NETWORK, Place(FOUR))
    assert (said.address6, said.prefix_len6, said.gateway6) == ("", 0, "")


def test_names_have_addresses_of_both_kinds() -> None:
    directory = Directory.of([SIX, FOUR], {NETWORK.id: "lab"})
    name = FOUR.names[0]
    assert directory.forward("10.100.1.5", name) == ["10.100.1.5", "2001:db8:1::5"]
    assert directory.reverse("10.100.1.5", "2001:db8:1::5") == [f"{name}.lab"]
