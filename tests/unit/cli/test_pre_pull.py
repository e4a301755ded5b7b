"""To which hosts an image is fetched ahead."""

import pytest

from labfleet_cli.pre_pull import chosen
from labfleet_proto.errors import InvalidRequestError, LabfleetError, NotFoundError
from labfleet_proto.host_policies import HostPolicy
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import HostId
from labfleet_proto.resources import Resources


def host(name: str, **labels: str) -> HostRecord:
    return HostRecord(
        id=HostId(name),
        address="10.0.0.1",
        data_port=1,
        capacity=Resources(),
        free=Resources(),
        cores=1,
        total_memory_bytes=1,
        labels=labels,
        boot_id="b",
        updated_at_ns=0,
    )


HOSTS = [
    (host("h1", room="a"), None),
    (host("h2", room="b"), HostPolicy(host=HostId("h2"), labels={"room": "a", "gpu": "yes"})),
    (host("h3"), None),
]


@pytest.mark.parametrize(
    ("names", "labels", "wanted"),
    [
        ((), (), ["h1", "h2", "h3"]),
        (("h3", "h1", "h3"), (), ["h1", "h3"]),
        ((), ("room=a",), ["h1", "h2"]),
        (("h3",), ("gpu=yes",), ["h2", "h3"]),
    ],
)
def test_hosts_are_chosen(
    names: tuple[str, ...], labels: tuple[str, ...], wanted: list[str]
) -> None:
    assert chosen(HOSTS, names, labels) == wanted


@pytest.mark.parametrize(
    ("names", "labels", "kind", "why"),
    [
        (("mars",), (), NotFoundError, "no host mars gives a sign of life: there are h1, h2, h3"),
        ((), ("room=z",), NotFoundError, "no host has the label room=z"),
        ((), ("room",), InvalidRequestError, "--label room: it is key=value"),
    ],
)
def test_a_choice_of_nothing_says_so(
    names: tuple[str, ...], labels: tuple[str, ...], kind: type[LabfleetError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        chosen(HOSTS, names, labels)
