"""What the containers of each host take, counted from their records."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import (
    HOST,
    container_id,
    container_record,
    container_spec,
    observation,
)

from labfleet_proto.containers import ContainerRecord, Goal, Observation, PortBinding, State
from labfleet_proto.ids import HostId
from labfleet_proto.placement import takes_room
from labfleet_proto.resources import Resources
from labfleet_scheduler.core.usage import Usage

NEED = container_spec().resources()
WEB = container_spec(
    ports=(
        PortBinding(container_port=80, host_port=8080),
        PortBinding(container_port=53, protocol="udp", host_port=None),
    )
)


def noted(*facts: tuple[ContainerRecord, Observation | None]) -> Usage:
    usage = Usage()
    for record, seen in facts:
        usage.note(record, seen)
    return usage


def test_containers_of_a_host_add_up() -> None:
    usage = noted((container_record(1), None), (container_record(2), None))
    assert usage.used(HOST) == NEED + NEED


def test_another_host_is_not_charged() -> None:
    assert noted((container_record(), None)).used(HostId("h2")) == Resources()


def test_a_container_that_ended_gives_its_room_back() -> None:
    record = container_record(goal=Goal.RUNNING, attempt=1)
    usage = noted((record, observation(State.RUNNING)), (record, observation(State.EXITED)))
    assert usage.used(HOST) == Resources()


def test_a_removed_container_is_not_known() -> None:
    record = container_record(goal=Goal.REMOVED)
    assert not noted((record, None), (record, observation(State.REMOVED))).knows(record.id)


def test_a_forgotten_container_takes_nothing() -> None:
    usage = noted((container_record(), None))
    usage.forget(container_id(1))
    assert (usage.used(HOST), usage.knows(container_id(1))) == (Resources(), False)


def test_forgetting_an_unknown_container_is_nothing() -> None:
    usage = noted((container_record(1), None))
    usage.forget(container_id(2))
    assert usage.used(HOST) == NEED


def test_a_running_container_holds_the_ports_it_was_given() -> None:
    record = container_record(spec=WEB, goal=Goal.RUNNING, attempt=1)
    usage = noted((record, observation(State.RUNNING)))
    assert usage.ports() == {HOST: {("tcp", 8080)}}


def test_a_container_that_was_not_started_holds_no_ports() -> None:
    assert noted((container_record(spec=WEB), None)).ports() == {}


def test_a_container_that_ended_holds_no_ports() -> None:
    record = container_record(spec=WEB, goal=Goal.STOPPED, attempt=1)
    assert noted((record, observation(State.EXITED))).ports() == {}


facts = st.integers(min_value=1, max_value=3).flatmap(
    lambda number: st.tuples(
        st.builds(
            container_record, st.just(number), goal=st.sampled_from(Goal), attempt=st.just(1)
        ),
        st.none() | st.builds(observation, st.sampled_from(State), number=st.just(number)),
    )
)


@given(st.lists(facts, max_size=12))
def test_only_the_newest_fact_of_each_container_counts(
    told: list[tuple[ContainerRecord, Observation | None]],
) -> None:
    newest = {record.id: (record, seen) for record, seen in told}
    wanted = [
        record.spec.resources()
        for record, seen in newest.values()
        if takes_room(record, seen) and (seen is None or seen.state is not State.REMOVED)
    ]
    total = reduce(Resources.__add__, wanted, Resources())
    assert noted(*told).used(HOST) == total
