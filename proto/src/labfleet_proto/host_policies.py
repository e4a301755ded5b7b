"""What the operators want of a host, apart from what the host says of itself."""

from enum import StrEnum

from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import HostId
from labfleet_proto.message import Message


class Availability(StrEnum):
    """As `docker node update --availability` has it."""

    ACTIVE = "active"
    PAUSE = "pause"
    """Takes no new containers."""
    DRAIN = "drain"
    """Takes none either: it is to be emptied. What runs there runs on until it is stopped."""


class HostPolicy(Message):
    """Value of bucket `host_policies`, key `<host>`; written by the api, read by the scheduler."""

    host: HostId
    availability: Availability = Availability.ACTIVE
    labels: dict[str, str] = {}
    """Besides the host's own; they win over those of the same name."""
    updated_at_ns: int = 0


def is_open(host: HostRecord, policy: HostPolicy | None) -> bool:
    """Whether new containers and volumes may be placed on the host."""
    wanted = policy.availability if policy else Availability.ACTIVE
    return not host.is_drained and wanted is Availability.ACTIVE


def labels_of(host: HostRecord, policy: HostPolicy | None) -> dict[str, str]:
    """Labels by which constraints choose."""
    return {**host.labels, **(policy.labels if policy else {})}
