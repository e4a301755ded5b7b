"""Whether a container can be talked to now, in docker's words."""

from labfleet_api.core.status import state_of
from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.errors import ConflictError


def require_active(record: ContainerRecord, seen: Observation | None) -> None:
    """Raise ConflictError unless a further process can be run in it."""
    state = state_of(record, seen)
    if state == "paused":
        raise ConflictError(f"container {record.id} is paused, unpause the container before exec")
    if state == "restarting":
        raise ConflictError(
            f"Container {record.id} is restarting, wait until the container is running"
        )
    if state != "running":
        raise ConflictError(f"container {record.id} is not running")


def require_attachable(text: str, record: ContainerRecord, seen: Observation | None) -> None:
    """Raise ConflictError if a client that names it `text` cannot attach to it."""
    state = state_of(record, seen)
    if state == "paused":
        raise ConflictError(f"container {text} is paused, unpause the container before attach")
    if state == "restarting":
        raise ConflictError(f"container {text} is restarting, wait until the container is running")
