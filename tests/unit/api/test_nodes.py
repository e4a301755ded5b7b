import pytest

from labfleet_api.core import nodes
from labfleet_api.core.nodes import NodeBody
from labfleet_proto.errors import InvalidRequestError, LabfleetError, NotFoundError
from labfleet_proto.host_policies import Availability, HostPolicy, is_open, labels_of
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import HostId
from labfleet_proto.resources import Resources


def host(name: str = "host1", **fields: object) -> HostRecord:
    room = Resources(memory_bytes=1, cpu_millis=1, pids=1, containers=1)
    return HostRecord(
        id=HostId(name),
        address="192.0.2.1",
        data_port=1,
        capacity=room,
        free=room,
        cores=2,
        total_memory_bytes=1 << 30,
        labels={"disk": "ssd"},
        boot_id="b",
        updated_at_ns=5,
        **fields,
    )


def policy(availability: Availability, **labels: str) -> HostPolicy:
    return HostPolicy(host=HostId("host1"), availability=availability, labels=labels)


def test_a_host_without_a_policy_is_active() -> None:
    shown = nodes.node_view(host(), None, 0, "1", is_lost=False)
    assert shown["Spec"] == {
        "Name": "host1",
        "Labels": {"disk": "ssd"},
        "Role": "worker",
        "Availability": "active",
    }
    assert shown["Status"]["State"] == "ready"
    assert shown["Description"]["Resources"] == {"NanoCPUs": 2 * 10**9, "MemoryBytes": 1 << 30}


def test_a_lost_host_is_down() -> None:
    assert nodes.node_view(host(), None, 0, "1", is_lost=True)["Status"]["State"] == "down"


def test_only_an_active_host_is_open() -> None:
    assert is_open(host(), None)
    assert is_open(host(), policy(Availability.ACTIVE))
    assert not is_open(host(), policy(Availability.PAUSE))
    assert not is_open(host(), policy(Availability.DRAIN))
    assert not is_open(host(is_drained=True), None)


def test_labels_of_the_operators_win() -> None:
    assert labels_of(host(), policy(Availability.ACTIVE, disk="nvme", row="2")) == {
        "disk": "nvme",
        "row": "2",
    }


def test_an_update_brings_the_whole_specification_back() -> None:
    body = NodeBody(Name="host1", Labels={"disk": "ssd", "row": "2"}, Availability="drain")
    made = nodes.checked_policy(host(), body, 9)
    assert made.availability is Availability.DRAIN
    assert made.labels == {"row": "2"}  # the host's own stays the host's own
    assert made.updated_at_ns == 9


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"Availability": "gone"}, "Availability"),
        ({"Role": "manager"}, "Role"),
        ({"Name": "other"}, "Name"),
        ({"Labels": {"a b": "1"}}, "Labels"),
        ({"Colour": "red"}, "Colour"),
    ],
)
def test_a_refusal_names_the_field(body: dict[str, object], field: str) -> None:
    with pytest.raises(LabfleetError, match=field):
        nodes.checked_policy(host(), NodeBody.model_validate(body), 9)


def test_hosts_are_found_by_name_or_unique_prefix() -> None:
    hosts = [host("host1"), host("host10"), host("other")]
    assert nodes.find_host("host1", hosts).id == "host1"
    assert nodes.find_host("o", hosts).id == "other"
    with pytest.raises(InvalidRequestError, match="ambiguous"):
        nodes.find_host("ho", hosts)
    for text in ("", "nosuch"):
        with pytest.raises(NotFoundError):
            nodes.find_host(text, hosts)


@pytest.mark.parametrize(
    ("wanted", "is_there"),
    [
        ({}, True),
        ({"name": ["host"]}, True),
        ({"name": ["x"]}, False),
        ({"label": ["disk=ssd"]}, True),
        ({"node.label": ["disk"]}, True),
        ({"label": ["disk=hdd"]}, False),
        ({"role": ["manager"]}, False),
        ({"membership": ["accepted"]}, True),
    ],
)
def test_filters(wanted: dict[str, list[str]], is_there: bool) -> None:  # noqa: FBT001
    row = nodes.node_view(host(), None, 0, "1", is_lost=False)
    assert nodes.matches(row, wanted) is is_there
