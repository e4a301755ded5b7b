"""What a host's kernel should have, from the fleet's memory."""

import pytest
from tests.unit.proto.records import (
    HOST,
    address_record,
    container_record,
    container_spec,
    network_id,
    observation,
)

from labfleet_network.core.wanted import (
    Remote,
    is_over,
    ports_of,
    publishing,
    remotes,
    stale_addresses,
)
from labfleet_proto.buckets import address_key, container_key
from labfleet_proto.containers import Goal, Observation, PortBinding, State
from labfleet_proto.ids import HostId
from labfleet_proto.networks import PublishedPort

OTHER = HostId("h2")
WEB = container_spec(
    ports=(
        PortBinding(container_port=80, host_port=8080),
        PortBinding(container_port=443, host_port=None),
    )
)


# -- addresses that may go


@pytest.mark.parametrize(
    ("seen", "is_at_end"),
    [
        (None, False),
        (observation(State.EXITED, attempt=1), False),
        (observation(State.CREATED, attempt=2), False),
        (observation(State.RUNNING, attempt=2), False),
        (observation(State.STOPPING, attempt=2), False),
        (observation(State.EXITED, attempt=2), True),
        (observation(State.REMOVED, attempt=1), True),
        (observation(State.ASSIGNED, attempt=3), True),
    ],
    ids=lambda value: (
        f"{value.state.name} {value.attempt}" if isinstance(value, Observation) else str(value)
    ),
)
def test_the_second_attempt_is_over(seen: Observation | None, *, is_at_end: bool) -> None:
    assert is_over(container_record(attempt=2), seen, attempt=2) is is_at_end


def test_an_attempt_of_a_forgotten_container_is_over() -> None:
    assert is_over(None, observation(State.RUNNING), attempt=1)


def stale(host: HostId, state: State) -> list[str]:
    address = address_record("10.100.1.2", host=host)
    record = container_record()
    return stale_addresses(
        {address_key(address.network, address.address): address},
        {container_key(record.tenant, record.id): record},
        {record.id: observation(state)},
        HOST,
    )


def test_an_address_of_an_ended_attempt_is_stale() -> None:
    assert stale(HOST, State.EXITED) == [f"{network_id(1)}.10.100.1.2"]


def test_an_address_in_use_stays() -> None:
    assert stale(HOST, State.RUNNING) == []


def test_an_address_of_another_host_is_that_hosts_business() -> None:
    assert stale(OTHER, State.EXITED) == []


def test_an_address_without_record_is_stale() -> None:
    address = address_record("10.100.1.2")
    assert stale_addresses({"key": address}, {}, {}, HOST) == ["key"]


def test_a_record_of_another_tenant_keeps_no_address() -> None:
    record = container_record(tenant="bob")
    records = {container_key(record.tenant, record.id): record}
    assert stale_addresses({"key": address_record("10.100.1.2")}, records, {}, HOST) == ["key"]


# -- containers elsewhere


def test_containers_of_other_hosts_are_reached_by_their_hosts_address() -> None:
    there = address_record("10.100.1.3", host=OTHER, vtep="192.0.2.2", mac="02:42:0a:64:01:03")
    assert remotes([there], {network_id(1)}, HOST) == {
        network_id(1): {Remote(network_id(1), "10.100.1.3", "02:42:0a:64:01:03", "192.0.2.2")}
    }


def test_own_containers_are_not_remote() -> None:
    assert remotes([address_record("10.100.1.3")], {network_id(1)}, HOST) == {network_id(1): set()}


def test_networks_that_are_not_here_need_no_entries() -> None:
    there = address_record("10.100.2.3", network=2, host=OTHER)
    assert remotes([there], {network_id(1)}, HOST) == {network_id(1): set()}


# -- published ports


def test_a_port_without_host_port_is_not_published() -> None:
    assert ports_of(container_record(spec=WEB)) == (
        PublishedPort(host_address="0.0.0.0", host_port=8080, protocol="tcp", container_port=80),  # noqa: S104
    )


@pytest.mark.parametrize(
    ("state", "is_led"),
    [
        (State.ASSIGNED, False),
        (State.PREPARING, False),
        (State.CREATED, False),
        (State.RUNNING, True),
        (State.STOPPING, True),
        (State.EXITED, False),
        (State.REMOVED, False),
    ],
)
def test_ports_are_led_while_it_runs(state: State, *, is_led: bool) -> None:
    assert publishing(container_record(spec=WEB, goal=Goal.RUNNING), observation(state)) is is_led


def test_ports_are_not_led_before_anything_was_seen() -> None:
    assert not publishing(container_record(spec=WEB, goal=Goal.RUNNING), None)


def test_ports_of_a_container_that_is_to_go_are_not_led() -> None:
    record = container_record(spec=WEB, goal=Goal.REMOVED)
    assert not publishing(record, observation(State.RUNNING))


def test_a_container_without_ports_leads_none() -> None:
    record = container_record(goal=Goal.RUNNING)
    assert not publishing(record, observation(State.RUNNING))
