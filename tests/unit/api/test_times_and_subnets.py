"""Times in docker's forms, and address ranges of networks."""

from ipaddress import IPv4Network
from itertools import islice
from typing import Any

import pytest
from tests.unit.proto.records import network_record

from labfleet_api.core.place_bodies import IpamPool
from labfleet_api.core.subnets import (
    COUNT,
    POOL,
    Addressing,
    asked,
    candidates,
    check_endpoint,
    gateway,
    parts,
    refuse_overlap,
    subnet_key,
    vni_key,
)
from labfleet_api.core.times import ZERO, human, parse_time, rfc3339
from labfleet_proto.errors import ForbiddenError, InvalidRequestError

S = 1_000_000_000
FIRST = 1_700_000_000 * S


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("", 0),
        ("0", 0),
        ("1700000000", FIRST),
        ("1700000000.5", FIRST + S // 2),
        ("1700000000.000000001", FIRST + 1),
        ("1700000000.123456789", FIRST + 123_456_789),
        ("2023-11-14T22:13:20Z", FIRST),
        ("2023-11-14T22:13:20", FIRST),
        ("2023-11-14T23:13:20+01:00", FIRST),
        ("2023-11-14T22:13:20.25Z", FIRST + S // 4),
        ("2023-11-14T22:13:20.999999Z", FIRST + 999_999_000),
        ("2023-11-14T22:13:20.123456789Z", FIRST + 123_456_789),
        ("2023-11-14", FIRST - 80_000 * S),
        ("1969-12-31T23:59:59.5Z", -S // 2),
    ],
)
def test_a_time_is_read(text: str, time_ns: int) -> None:
    assert parse_time(text, "since") == time_ns


@pytest.mark.parametrize("text", ["soon", "-5", "10m", "1e9", "1700000000.", "2023-13-01", " 1"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"since: .* neither Unix time nor RFC 3339"):
        parse_time(text, "since")


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, ZERO),
        (-1, ZERO),
        (FIRST, "2023-11-14T22:13:20.000000000Z"),
        (FIRST + 7, "2023-11-14T22:13:20.000000007Z"),
    ],
)
def test_a_time_is_written_with_nine_decimals(time_ns: int, text: str) -> None:
    assert rfc3339(time_ns) == text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"),
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86_400, "13 days"),
        (14 * 86_400, "2 weeks"),
        (59 * 86_400, "8 weeks"),
        (60 * 86_400, "2 months"),
        (729 * 86_400, "24 months"),
        (730 * 86_400, "2 years"),
    ],
)
def test_a_duration_in_dockers_words(seconds: float, words: str) -> None:
    assert human(seconds) == words


def test_candidates_are_the_free_ranges_from_a_start_on() -> None:
    taken = {"10.100.1.0/24"}
    found = [str(each) for each in islice(candidates(taken, 0), 3)]
    assert found == ["10.100.0.0/24", "10.100.2.0/24", "10.100.3.0/24"]


def test_candidates_are_every_range_of_the_pool_once_whatever_the_start() -> None:
    found = list(candidates(set(), COUNT - 1))
    assert str(found[0]) == "10.103.255.0/24"
    assert len(set(found)) == len(found) == COUNT == 1024
    assert all(each.subnet_of(POOL) for each in found)


def test_a_wide_candidate_has_none_of_what_is_taken() -> None:
    taken = {"10.100.17.0/24"}
    found = [str(each) for each in islice(candidates(taken, 20, 20), 2)]
    assert found == ["10.100.32.0/20", "10.100.48.0/20"]


def test_a_subnet_of_the_pool_has_parts_and_any_other_none() -> None:
    assert parts("10.100.7.0/24") == ["10.100.7.0/24"]
    assert len(parts("10.100.16.0/20")) == 16
    assert parts("10.100.16.0/20")[-1] == "10.100.31.0/24"
    assert parts("10.100.7.0/30") == ["10.100.7.0/30"]
    assert parts("192.168.0.0/16") == ["192.168.0.0/16"]


def test_a_full_pool_has_no_candidate() -> None:
    taken = {str(each) for each in candidates(set(), 0)}
    assert list(candidates(taken, 5)) == []


def pool(**fields: Any) -> Addressing:
    return asked([IpamPool.model_validate(fields)])


def test_keys_of_claims() -> None:
    assert subnet_key("10.100.7.0/24") == "net.10.100.7.0-24"
    assert vni_key(7) == "vni.7"


@pytest.mark.parametrize(
    "text", ["10.100.7.0/24", "10.100.0.0/16", "192.168.1.0/24", "132.124.0.0/16", "10.0.0.0/8"]
)
def test_any_range_may_be_chosen(text: str) -> None:
    assert pool(Subnet=text).subnet == IPv4Network(text)


def test_nothing_asked_is_nothing_said() -> None:
    assert asked([]) == asked([IpamPool()]) == Addressing()


@pytest.mark.parametrize(
    ("subnet", "ip_range", "first"),
    [
        ("172.28.0.0/16", "", "172.28.0.1"),
        ("172.28.0.0/16", "172.28.5.0/24", "172.28.5.0"),
        ("172.28.0.0/16", "172.28.0.0/24", "172.28.0.1"),
    ],
)
def test_the_gateway_is_the_first_address_of_the_range(
    subnet: str, ip_range: str, first: str
) -> None:
    assert gateway(IPv4Network(subnet), ip_range) == first


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Subnet": "x"}, "invalid CIDR block notation"),
        ({"Gateway": "10.0.0.1"}, "invalid CIDR block notation"),
        ({"Subnet": "10.1.0.0"}, "invalid CIDR block notation"),
        ({"Subnet": "10.1.0.0/33"}, "invalid CIDR block notation"),
        ({"Subnet": "10.1.1.5/24"}, r"it should be 10\.1\.1\.0/24"),
        ({"Subnet": "10.1.0.0/31"}, "prefix must be from /8 to /30"),
        ({"Subnet": "0.0.0.0/0"}, "prefix must be from /8 to /30"),
        ({"Subnet": "127.0.0.0/16"}, "have a meaning already"),
        ({"Subnet": "224.0.0.0/16"}, "have a meaning already"),
        ({"Subnet": "10.1.0.0/16", "Gateway": "10.2.0.1"}, "invalid gateway"),
        ({"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.0"}, "invalid gateway"),
        ({"Subnet": "10.1.0.0/16", "IPRange": "10.2.0.0/24"}, "invalid ip-range"),
        (
            {"Subnet": "10.1.0.0/16", "AuxiliaryAddresses": {"a": "x"}},
            "invalid auxiliary address x",
        ),
    ],
)
def test_what_is_no_pool_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        pool(**fields)


@pytest.mark.parametrize("pair", [("10.1.0.0/16", "10.2.0.0/16"), ("fd01::/64", "fd02::/64")])
def test_two_pools_of_one_family_are_refused_as_dockers_bridge_does(pair: tuple[str, str]) -> None:
    with pytest.raises(ForbiddenError, match="doesn't support multiple subnets"):
        asked([IpamPool(Subnet=each) for each in pair])


def test_two_networks_of_a_tenant_may_not_overlap() -> None:
    other = network_record(subnet="172.28.0.0/16")
    refuse_overlap(IPv4Network("172.29.0.0/16"), None, [other])
    with pytest.raises(ForbiddenError, match="Pool overlaps with other one on this address space"):
        refuse_overlap(IPv4Network("172.28.5.0/24"), None, [other])


def test_an_address_that_is_asked_for_lies_in_the_subnet() -> None:
    network = network_record(subnet="172.28.0.0/16")
    check_endpoint(network, "172.28.5.24")
    for address in ("10.0.0.1", "172.28.0.0", "172.28.255.255"):
        with pytest.raises(InvalidRequestError, match="no configured subnet contains IP address"):
            check_endpoint(network, address)
    with pytest.raises(InvalidRequestError, match="invalid IPv4 address"):
        check_endpoint(network, "x")
