"""Names: docker's rules and words."""

import random
from collections.abc import Callable

import pytest

from labfleet_api.core.names import (
    checked_container_name,
    checked_network_name,
    checked_volume_name,
    random_name,
)
from labfleet_proto.errors import InvalidRequestError

GOOD = ("web", "w1", "Web_1.2-x", "0a", "a" * 253)
BAD = ("-web", ".web", "_web", "we b", "wé", "web/db", "a" * 254, "web\n", "..", "a:b")


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    "check", [checked_container_name, checked_volume_name, checked_network_name]
)
def test_a_name_within_the_rule_is_taken(check: Callable[[str], str], name: str) -> None:
    assert check(name) == name


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("check", [checked_container_name, checked_volume_name])
def test_a_name_against_the_rule_is_refused(check: Callable[[str], str], name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"\[a-zA-Z0-9\]\[a-zA-Z0-9_\.-\]"):
        check(name)


def test_a_container_name_loses_its_slash() -> None:
    assert checked_container_name("/web") == "web"


@pytest.mark.parametrize("name", ["", "/", "a", "//web"])
def test_a_container_name_has_two_characters_at_least(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="Invalid container name"):
        checked_container_name(name)


def test_a_volume_name_of_one_character_is_too_short() -> None:
    with pytest.raises(InvalidRequestError, match="too short"):
        checked_volume_name("a")


@pytest.mark.parametrize("name", ["two words", "wé", "_x", "a:b"])
def test_a_network_may_be_called_nearly_anything(name: str) -> None:
    assert checked_network_name(name) == name


@pytest.mark.parametrize("name", ["web/db", "a" * 254, "web\n", "a\0"])
def test_some_names_of_networks_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="invalid network name"):
        checked_network_name(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_a_network_needs_a_name(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="name is empty"):
        checked_network_name(name)


def test_a_random_name_is_an_adjective_and_a_surname_within_the_rule() -> None:
    choice = random.Random(1).choice
    names = {random_name(choice) for _ in range(200)}
    assert len(names) > 150
    for name in names:
        assert checked_container_name(name) == name
        assert name.count("_") == 1
