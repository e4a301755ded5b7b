"""Hosts: what each says of itself."""

from labfleet_proto.ids import HostId
from labfleet_proto.message import Message
from labfleet_proto.resources import Resources


class HostRecord(Message):
    """Value of bucket `hosts`, key `<host>`; written by that host's agent only."""

    id: HostId
    address: str
    """Underlay address: VTEP and data port."""
    data_port: int
    capacity: Resources
    """After the host reserve, with the CPU overcommit applied."""
    free: Resources
    cores: int
    total_memory_bytes: int
    """Of the machine, or of the share given to a virtual host."""
    labels: dict[str, str] = {}
    features: tuple[str, ...] = ()
    """Such as `cgroup-v1`, `class-lab`."""
    is_drained: bool = False
    kernel: str = ""
    operating_system: str = ""
    runtime: str = ""
    """Such as `crun 1.8.1`."""
    boot_id: str
    updated_at_ns: int


class Lease(Message):
    """Value of bucket `leases`, key `<host>`; the bucket's TTL takes it away from a silent host."""

    host: HostId
    epoch: int
    boot_id: str
