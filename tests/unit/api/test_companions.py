"""Containers in namespaces of others: whose user ids they have, and who may."""

from typing import Any

import pytest
from tests.unit.proto.records import container_id, container_record, container_spec

from labfleet_api.core import companions
from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_proto.powers import HostPowers

OF_HOST: frozenset[Any] = frozenset({"user", "pid"})


def other(number: int, **fields: Any) -> ContainerRecord:
    return container_record(id=container_id(number), spec=container_spec(**fields))


def test_the_containers_that_a_request_names() -> None:
    body = HostConfigBody(PidMode="container:web", IpcMode="shareable")
    assert companions.wanted(body) == {"pid": "web"}
    assert companions.shared_memory(body) == "shareable"
    assert companions.shared_memory(HostConfigBody(IpcMode="none")) == "none"
    with pytest.raises(InvalidRequestError, match="IpcMode"):
        companions.wanted(HostConfigBody(IpcMode="container:"))


def test_who_joins_another_has_its_ids() -> None:
    found = companions.joined(container_spec(), {"pid": other(5)}, is_operator=False)
    assert found.joins == {"pid": container_id(5)}
    assert found.has_ids_of == container_id(5)


def test_two_ranges_of_ids_cannot_be_had() -> None:
    both: dict[Any, ContainerRecord] = {"pid": other(5), "ipc": other(6)}
    with pytest.raises(InvalidRequestError, match="nobody can be in both"):
        companions.joined(container_spec(), both, is_operator=False)
    both["ipc"] = other(6, joins={"pid": container_id(5)})
    assert len(companions.joined(container_spec(), both, is_operator=False).joins) == 2


def test_only_an_operator_joins_who_has_the_hosts_namespaces() -> None:
    powerful: dict[Any, ContainerRecord] = {
        "pid": other(5, powers=HostPowers(namespaces=OF_HOST)),
        "ipc": other(5, powers=HostPowers(namespaces=OF_HOST)),
    }
    with pytest.raises(ForbiddenError, match="PidMode"):
        companions.joined(container_spec(), powerful, is_operator=False)
    found = companions.joined(container_spec(), powerful, is_operator=True)
    assert found.powers is not None
    assert found.powers.namespaces == OF_HOST
    assert found.joins == {"ipc": container_id(5)}
    assert found.has_ids_of is None
