"""What a service instance says of itself when pinged."""

from labfleet_proto.ids import HostId
from labfleet_proto.jobs import Service
from labfleet_proto.message import Message


class Pong(Message):
    """Answer to a ping."""

    service: Service
    host: HostId | None
    version: str
    pid: int
    started_at_ns: int
    metrics_port: int
    is_ready: bool
    detail: str = ""
