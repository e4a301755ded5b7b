"""Placement: what the api asks of the scheduler, and the scheduler of the hosts."""

from labfleet_proto.containers import (
    ContainerRecord,
    ContainerSpec,
    Goal,
    Observation,
    State,
    awaits_restart,
)
from labfleet_proto.ids import ContainerId, TenantId
from labfleet_proto.images import ImagePin
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message
from labfleet_proto.resources import Resources


class PlaceContainer(Message):
    """Bind a new container to a host and store its record. Idempotent by container id."""

    container: ContainerId
    tenant: TenantId
    name: str
    """Already claimed in `names` by the caller."""
    spec: ContainerSpec
    """Host ports may be None; the scheduler fills them in."""
    image: ImagePin
    constraints: tuple[str, ...] = ()
    """`label==value`, `label!=value`, or `host==name`; all must hold (label `labfleet.constraint`)."""
    created_at_ns: int


class ContainerPlaced(Message):
    """The record as stored."""

    record: ContainerRecord
    revision: int


class Hold(Message):
    """Set capacity aside for a container that is about to be stored. Idempotent by container id."""

    container: ContainerId
    resources: Resources


class HoldAnswer(Message):
    """The host's word, from its fresh free vector. A hold lapses after 30 s unless its record appears."""

    is_granted: bool
    lacking: tuple[str, ...] = ()
    free: Resources


def takes_room(record: ContainerRecord, seen: Observation | None) -> bool:
    """Whether a container counts against its host's capacity: the rule that scheduler and agent share.

    One that was created and never started counts, as its start must not be refused; one that
    exited does not, so that a host does not fill up with finished work, unless its restart policy
    is about to run it again. Its next start is admitted anew. What still runs counts, whichever attempt it is of.
    """
    is_here = seen is not None and seen.state < State.EXITED
    if record.goal is Goal.REMOVED or is_here:
        return is_here
    if record.goal is Goal.CREATED:
        return True
    is_awaited = seen is None or seen.attempt < record.attempt or awaits_restart(record, seen)
    return is_awaited and record.goal is Goal.RUNNING


PLACE = JobKind("place", "scheduler", PlaceContainer, ContainerPlaced, timeout_s=12.0)
"""Raises NoRoomError with the reasons per host, or ConflictError (volume homes disagree).

The limit leaves time for a takeover by a standby, and ends before the scheduler drops the unused name.
"""
HOLD = JobKind("hold", "runtime-agent", Hold, HoldAnswer, timeout_s=3.0)
