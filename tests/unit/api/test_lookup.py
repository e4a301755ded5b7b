"""Lookup: id, then name, then unique prefix."""

import pytest
from tests.unit.proto.records import container_record, network_record

from labfleet_api.core.lookup import find_container, find_network
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import InvalidRequestError, NotFoundError
from labfleet_proto.ids import ContainerId, NetworkId

AB = ContainerId("ab" + "0" * 62)
AC = ContainerId("ac" + "0" * 62)


def container(identity: ContainerId, name: str) -> ContainerRecord:
    return container_record(id=identity, name=name)


CONTAINERS = (container(AB, "web"), container(AC, "db"), container(ContainerId("f" * 64), "ab"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (AB, "web"),
        ("web", "web"),
        ("/web", "web"),
        ("ac", "db"),
        (AC[:12], "db"),
        ("ab", "ab"),
        ("ab0", "web"),
    ],
    ids=["id", "name", "slash", "prefix", "short id", "name over prefix", "longer prefix"],
)
def test_a_container_is_found(text: str, name: str) -> None:
    assert find_container(text, CONTAINERS).name == name


def test_a_whole_id_goes_before_a_name() -> None:
    named_so = container(ContainerId("f" * 64), AB)
    assert find_container(AB, (named_so, *CONTAINERS)).id == AB


def test_an_ambiguous_prefix_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="Multiple IDs found with provided prefix: a"):
        find_container("a", CONTAINERS)


@pytest.mark.parametrize("text", ["", "/", "nosuch", "AB0", AB + "0", "//web"])
def test_an_unknown_container_is_not_found(text: str) -> None:
    with pytest.raises(NotFoundError, match=f"^No such container: {text}$"):
        find_container(text, CONTAINERS)


NETWORKS = (
    network_record(1, id=NetworkId(AB), name="front"),
    network_record(2, id=NetworkId(AC), name="ab"),
)


@pytest.mark.parametrize(("text", "name"), [(AB, "front"), ("front", "front"), ("ab", "ab")])
def test_a_network_is_found(text: str, name: str) -> None:
    assert find_network(text, NETWORKS).name == name


def test_an_ambiguous_prefix_of_a_network_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"network a is ambiguous \(2 matches found\)"):
        find_network("a", NETWORKS)


@pytest.mark.parametrize("text", ["", "nosuch", "/front"])
def test_an_unknown_network_is_not_found(text: str) -> None:
    with pytest.raises(NotFoundError, match=f"^network {text} not found$"):
        find_network(text, NETWORKS)
