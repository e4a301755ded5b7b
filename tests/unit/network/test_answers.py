"""DNS answers: names of one's own networks, forward and reverse, and of no others."""

import pytest
from tests.unit.proto.records import address_record, network_id

from labfleet_network.core.answers import Directory

# Container 1 is in networks 1 and 2, 2 only in 1, 3 only in 3.
WEB_IN_1, WEB_IN_2, DB_IN_1, OTHER_IN_3 = "10.100.1.2", "10.100.2.2", "10.100.1.3", "10.100.3.2"
NAMES = {network_id(1): "front", network_id(2): "back", network_id(3): "other"}
FLEET = Directory.of(
    [
        address_record(WEB_IN_1, network=1, number=1, names=("web", "node", "Big-Web")),
        address_record(WEB_IN_2, network=2, number=1, names=("web",)),
        address_record(DB_IN_1, network=1, number=2, names=("db", "node")),
        address_record(OTHER_IN_3, network=3, number=3, names=("secret", "web")),
    ],
    NAMES,
)


def test_a_container_is_in_the_networks_of_all_its_addresses() -> None:
    assert FLEET.networks_of(WEB_IN_2) == {network_id(1), network_id(2)}


def test_a_stranger_is_in_no_network() -> None:
    assert FLEET.networks_of("192.0.2.1") == set()


@pytest.mark.parametrize(
    "name", ["db", "db.", "DB", "db.front", "db.front.", "Db.Front"], ids="asked as {}".format
)
def test_a_name_is_found_in_each_spelling(name: str) -> None:
    assert FLEET.forward(WEB_IN_1, name) == [DB_IN_1]


def test_a_name_that_was_given_in_capitals_is_found() -> None:
    assert FLEET.forward(DB_IN_1, "big-web") == [WEB_IN_1]


def test_an_alias_of_several_has_all_addresses_in_order() -> None:
    assert FLEET.forward(DB_IN_1, "node") == [WEB_IN_1, DB_IN_1]


def test_addresses_are_ordered_as_numbers() -> None:
    many = [
        address_record(f"10.100.1.{last}", number=last, names=("node",)) for last in (10, 9, 100)
    ]
    found = Directory.of(many, NAMES).forward("10.100.1.9", "node")
    assert found == ["10.100.1.9", "10.100.1.10", "10.100.1.100"]


def test_a_name_in_two_of_the_askers_networks_has_both_addresses() -> None:
    assert FLEET.forward(WEB_IN_1, "web") == [WEB_IN_1, WEB_IN_2]


def test_a_name_with_its_network_has_only_the_address_there() -> None:
    assert FLEET.forward(WEB_IN_1, "web.back") == [WEB_IN_2]


def test_only_the_askers_own_networks_are_searched() -> None:
    assert FLEET.forward(DB_IN_1, "web") == [WEB_IN_1]


@pytest.mark.parametrize("name", ["secret", "secret.other", "web.other", "web.back"])
def test_a_name_of_another_network_is_unknown(name: str) -> None:
    assert FLEET.forward(DB_IN_1, name) is None


@pytest.mark.parametrize("name", ["", ".", "example.com", "front", ".front"])
def test_a_name_of_the_world_is_none_of_ours(name: str) -> None:
    assert FLEET.forward(DB_IN_1, name) is None


def test_a_stranger_learns_no_name() -> None:
    assert FLEET.forward("192.0.2.1", "web") is None


def test_a_network_that_has_no_name_yet_still_resolves() -> None:
    directory = Directory.of([address_record(DB_IN_1, names=("db",))], {})
    assert directory.forward(DB_IN_1, "db") == [DB_IN_1]


def test_an_address_has_the_first_name_and_the_network() -> None:
    assert FLEET.reverse(DB_IN_1, WEB_IN_1) == ["web.front"]


def test_an_address_of_another_network_has_no_name() -> None:
    assert FLEET.reverse(DB_IN_1, WEB_IN_2) is None


def test_an_unknown_address_has_no_name() -> None:
    assert FLEET.reverse(DB_IN_1, "10.100.1.99") is None


@pytest.mark.parametrize("asker", [WEB_IN_1, DB_IN_1])
def test_forward_and_reverse_agree(asker: str) -> None:
    names = FLEET.reverse(asker, DB_IN_1)
    assert names is not None
    assert FLEET.forward(asker, names[0]) == [DB_IN_1]


def test_a_link_is_known_to_its_holder_alone_and_follows_the_name() -> None:
    asker = address_record("10.100.1.7", names=("asker",), number=7, links={"store": "DB"})
    other = address_record("10.100.1.8", names=("other",), number=8)
    directory = Directory.of([address_record(DB_IN_1, names=("db",)), asker, other], {})
    assert directory.forward("10.100.1.7", "store") == [DB_IN_1]
    assert directory.forward("10.100.1.8", "store") is None


def test_equal_addresses_of_two_networks_are_told_apart_by_where_the_question_came_in() -> None:
    one = address_record("10.1.0.2", network=1, number=1, names=("web",))
    two = address_record("10.1.0.2", network=2, number=2, names=("db",))
    directory = Directory.of([one, two], {})
    assert directory.forward("10.1.0.2", "web", one.network) == ["10.1.0.2"]
    assert directory.forward("10.1.0.2", "web", two.network) is None
    assert directory.forward("10.1.0.2", "db", two.network) == ["10.1.0.2"]
