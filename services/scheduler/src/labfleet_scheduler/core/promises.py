"""What must be brought to its end: a list of actions from a snapshot of the fleet's memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from labfleet_proto.buckets import container_key, name_key
from labfleet_proto.containers import ContainerRecord, NameRecord, Observation, State
from labfleet_proto.ids import ContainerId

ORPHAN_NAME_S = 24.0
"""Twice as long as `place` may take."""
EXIT_CODE_KEPT_S = 60.0


@dataclass(frozen=True)
class DropContainer:
    """Its host has removed everything: forget record, name and anonymous volumes."""

    container_key: str
    name_key: str
    volume_keys: tuple[str, ...]


@dataclass(frozen=True)
class DropName:
    """A claim whose container never came to be, or has another name: a rename was cut short.

    The key may be claimed anew before this is done: only the claim of `container` is to go.
    """

    name_key: str
    container: ContainerId


@dataclass(frozen=True)
class DropObservation:
    """An observation of a container that has no record any more.

    It is kept for a while after the end: it alone tells the exit code to those who were not
    listening when the container came and went.
    """

    observed_key: str


Action = DropContainer | DropName | DropObservation


def due(
    records: Mapping[str, ContainerRecord],
    names: Mapping[str, NameRecord],
    observed: Mapping[str, Observation],
    now_ns: int,
    exit_code_kept_s: float = EXIT_CODE_KEPT_S,
) -> list[Action]:
    """Return what to do now. Each action is idempotent; the order does not matter."""
    actions: list[Action] = []
    for key, seen in observed.items():
        if seen.state is not State.REMOVED:
            continue
        record = records.get(container_key(seen.tenant, seen.id))
        if record is None:
            if (now_ns - seen.finished_at_ns) / 1e9 > exit_code_kept_s:
                actions.append(DropObservation(key))
        elif record.assignment.host == seen.host:
            actions.append(_drop(record))
    named = {record.id: name_key(record.tenant, record.name) for record in records.values()}
    for key, name in names.items():
        age_s = (now_ns - name.created_at_ns) / 1e9
        if named.get(name.id) != key and age_s > ORPHAN_NAME_S:
            actions.append(DropName(key, name.id))
    return actions


def _drop(record: ContainerRecord) -> DropContainer:
    with_volumes = record.remove_volumes or record.spec.auto_remove
    anonymous = tuple(
        name_key(record.tenant, mount.volume)
        for mount in record.spec.mounts
        if with_volumes and mount.is_anonymous
    )
    return DropContainer(
        container_key(record.tenant, record.id),
        name_key(record.tenant, record.name),
        anonymous,
    )
