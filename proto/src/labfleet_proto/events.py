"""Events as docker shows them."""

from labfleet_proto.ids import HostId, TenantId
from labfleet_proto.message import Message


class FleetEvent(Message):
    """A fact of the fleet in docker's words, on subject `event.<tenant>.<type>.<id>`."""

    tenant: TenantId
    type: str
    """`container`, `image`, `network`, `volume`."""
    action: str
    """Such as `create`, `start`, `die`, `destroy`, `exec_create: sh`."""
    id: str
    attributes: dict[str, str]
    host: HostId | None = None
    time_ns: int
