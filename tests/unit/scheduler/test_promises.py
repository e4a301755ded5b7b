"""What the scheduler brings to its end."""

import pytest
from tests.unit.proto.records import (
    TENANT,
    container_id,
    container_record,
    container_spec,
    observation,
)

from labfleet_proto.buckets import container_key, name_key, observed_key
from labfleet_proto.containers import (
    Assignment,
    ContainerRecord,
    Goal,
    NameRecord,
    Observation,
    State,
    VolumeMount,
)
from labfleet_proto.ids import HostId
from labfleet_scheduler.core.promises import (
    EXIT_CODE_KEPT_S,
    ORPHAN_NAME_S,
    Action,
    DropContainer,
    DropName,
    DropObservation,
    due,
)

ANONYMOUS = "f" * 64
LONG_NAME = "data" * 16
"""Of a user's own volume: as long as the name of an anonymous one."""
MOUNTS = (
    VolumeMount(volume=LONG_NAME, target="/data"),
    VolumeMount(volume=ANONYMOUS, target="/tmp", is_anonymous=True),
)
CLAIMED_NS = 1_800_000_000 * 10**9
LATE_NS = CLAIMED_NS + int((ORPHAN_NAME_S + 1) * 1e9)


def due_of(
    record: ContainerRecord | None = None,
    seen: Observation | None = None,
    name: NameRecord | None = None,
    now_ns: int = 0,
) -> list[Action]:
    return due(
        {container_key(record.tenant, record.id): record} if record else {},
        {name_key(TENANT, "c1"): name} if name else {},
        {observed_key(seen.host, seen.id): seen} if seen else {},
        now_ns,
    )


def dropped_volumes(record: ContainerRecord) -> tuple[str, ...]:
    (action,) = due_of(record, observation(State.REMOVED))
    assert isinstance(action, DropContainer)
    return action.volume_keys


def test_a_removed_container_is_forgotten_with_all_its_keys() -> None:
    record = container_record(goal=Goal.REMOVED)
    assert due_of(record, observation(State.REMOVED)) == [
        DropContainer(
            container_key=f"ann.{record.id}",
            name_key="ann.c1",
            volume_keys=(),
        )
    ]


@pytest.mark.parametrize("state", [state for state in State if state is not State.REMOVED])
def test_a_container_that_is_not_removed_yet_stays(state: State) -> None:
    assert due_of(container_record(goal=Goal.REMOVED), observation(state)) == []


def test_a_container_stays_when_only_another_host_has_removed_it() -> None:
    moved = container_record(assignment=Assignment(host=HostId("h2"), epoch=1, reason="test"))
    assert due_of(moved, observation(State.REMOVED)) == []


def test_a_removed_container_without_record_leaves_only_an_observation() -> None:
    assert due_of(None, observation(State.REMOVED), now_ns=LATE_NS) == [
        DropObservation(f"h1.{container_id(1)}")
    ]


def test_an_exit_code_is_kept_for_those_who_were_not_listening() -> None:
    seen = observation(State.REMOVED, exit_code=7, finished_at_ns=CLAIMED_NS)
    assert due_of(None, seen, now_ns=CLAIMED_NS + int(EXIT_CODE_KEPT_S * 1e9)) == []
    assert due_of(None, seen, now_ns=CLAIMED_NS + int((EXIT_CODE_KEPT_S + 1) * 1e9)) != []


def test_an_observation_without_record_waits_for_its_host() -> None:
    assert due_of(None, observation(State.EXITED)) == []


def test_volumes_stay_when_a_container_is_removed() -> None:
    spec = container_spec(mounts=MOUNTS)
    assert dropped_volumes(container_record(spec=spec)) == ()


def test_anonymous_volumes_go_when_that_was_asked_for() -> None:
    record = container_record(spec=container_spec(mounts=MOUNTS), remove_volumes=True)
    assert dropped_volumes(record) == (f"ann.{ANONYMOUS}",)


def test_anonymous_volumes_go_with_a_container_that_removes_itself() -> None:
    spec = container_spec(mounts=MOUNTS, auto_remove=True)
    assert dropped_volumes(container_record(spec=spec)) == (f"ann.{ANONYMOUS}",)


def test_a_name_without_container_is_freed_after_its_time() -> None:
    name = NameRecord(id=container_id(1), created_at_ns=CLAIMED_NS)
    assert due_of(name=name, now_ns=LATE_NS) == [DropName("ann.c1", container_id(1))]


def test_a_name_that_was_just_claimed_waits_for_its_container() -> None:
    name = NameRecord(id=container_id(1), created_at_ns=CLAIMED_NS)
    assert due_of(name=name, now_ns=CLAIMED_NS + int(ORPHAN_NAME_S * 1e9)) == []


def test_a_name_of_a_container_stays_however_old() -> None:
    name = NameRecord(id=container_id(1), created_at_ns=CLAIMED_NS)
    assert due_of(container_record(), name=name, now_ns=LATE_NS) == []


def test_nothing_is_due_in_an_empty_fleet() -> None:
    assert due({}, {}, {}, LATE_NS) == []
