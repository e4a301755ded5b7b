"""IPv6 pools of networks."""

from ipaddress import IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import network_record

from labfleet_api.core import subnets, subnets6
from labfleet_api.core.network_documents import network_document
from labfleet_api.core.place_bodies import IpamPool
from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_proto.networks import AddressPool

LAB = AddressPool(subnet="2001:db8:1::/64", gateway="2001:db8:1::1")
vnis = st.integers(min_value=1, max_value=(1 << 24) - 1)


def test_a_pool_of_each_family() -> None:
    found = subnets.asked([IpamPool(Subnet="2001:db8:1::/64"), IpamPool(Subnet="10.9.0.0/16")])
    assert (str(found.subnet), found.ipv6) == ("10.9.0.0/16", LAB)


def test_a_pool_of_ipv6_alone_leaves_the_other_to_the_fleet() -> None:
    pool = IpamPool(Subnet="2001:389::/64", IPRange="2001:389::0/96", Gateway="2001:389::ffff")
    found = subnets.asked([pool])
    assert found.subnet is None
    assert found.ipv6 == AddressPool(
        subnet="2001:389::/64", gateway="2001:389::ffff", ip_range="2001:389::/96"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Subnet": "2001:db8::1/64"}, "it should be 2001:db8::/64"),
        ({"Subnet": "2001:db8::"}, "invalid CIDR"),
        ({"Subnet": "2001:zz::/64"}, "invalid CIDR"),
        ({"Subnet": "2001:db8::/127"}, "at most /126"),
        ({"Subnet": "fe80::/64"}, "have a meaning already"),
        ({"Subnet": "ff00::/64"}, "have a meaning already"),
        ({"Subnet": "fd00::/64", "IPRange": "fd01::/96"}, "not within"),
        ({"Subnet": "fd00::/64", "Gateway": "fd01::1"}, "parent subnet"),
        ({"Subnet": "fd00::/64", "Gateway": "10.0.0.1"}, "invalid address"),
        ({"Subnet": "fd00::/64", "AuxiliaryAddresses": {"a": "fd00::"}}, "parent subnet"),
    ],
)
def test_a_wrong_pool_is_refused(fields: dict, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        subnets6.asked(IpamPool(**fields))


@given(vnis, vnis)
def test_a_network_without_a_wish_has_a_pool_of_its_own(one: int, other: int) -> None:
    pools = [subnets6.own_pool(vni) for vni in (one, other)]
    assert all(IPv6Network(each.subnet).is_private for each in pools)
    assert subnets6.overlap(*pools) == (one == other)


def test_an_address_that_is_asked_for_lies_in_the_pool() -> None:
    network = network_record(ipv6=LAB)
    assert subnets6.check_endpoint(network, "2001:db8:1:0::F") == "2001:db8:1::f"
    for text in ("2001:db8:2::1", "2001:db8:1::"):
        with pytest.raises(InvalidRequestError, match="no configured subnet contains"):
            subnets6.check_endpoint(network, text)
    with pytest.raises(InvalidRequestError, match="no configured subnet contains"):
        subnets6.check_endpoint(network_record(), "2001:db8:1::5")
    with pytest.raises(InvalidRequestError, match="invalid IPv6 address"):
        subnets6.check_endpoint(network, "10.0.0.1")


def test_two_networks_of_a_tenant_share_no_ipv6() -> None:
    with pytest.raises(ForbiddenError, match="2001:db8:1::/64 and 2001:db8:1::/64 of network"):
        subnets.refuse_overlap(None, LAB, [network_record(ipv6=LAB)])
    subnets.refuse_overlap(None, LAB, [network_record()])


@pytest.mark.parametrize("is_on", [True, False])
def test_a_pool_is_shown_whether_it_is_used_or_not(is_on: bool) -> None:  # noqa: FBT001
    document = network_document(network_record(ipv6=LAB, has_ipv6=is_on), {})
    assert document["EnableIPv6"] is is_on
    assert document["IPAM"]["Config"][1] == {
        "Subnet": "2001:db8:1::/64",
        "Gateway": "2001:db8:1::1",
    }
