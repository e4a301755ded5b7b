"""What reaches beyond a container into its host: the fleet's operators may ask for it, nobody else."""

from typing import Literal

from labfleet_proto.message import Message

UNCONFINED = "unconfined"

Namespace = Literal["pid", "ipc", "uts", "network", "user", "cgroup"]
"""As the OCI runtime-spec calls them."""


class DeviceWish(Message):
    """A device of the host, or all devices below a directory."""

    source: str
    target: str
    access: str = "rwm"
    """Of read, write and make a node."""


class DeviceThrottle(Message):
    """What a container may do with one disk of its host."""

    kind: Literal["weight", "read_bps", "write_bps", "read_iops", "write_iops"]
    path: str
    value: int


class HostPowers(Message):
    """Of a container whose owner has the host anyway; its limits hold as any other's."""

    is_privileged: bool = False
    """All capabilities and devices of the host, nothing masked, no filter of system calls."""
    namespaces: frozenset[Namespace] = frozenset()
    """Those of the host itself. With `user` the container's root is the host's."""
    devices: tuple[DeviceWish, ...] = ()
    device_rules: tuple[str, ...] = ()
    """As devices.allow of control groups takes them."""
    throttles: tuple[DeviceThrottle, ...] = ()
    rt_period_us: int = 0
    """0: the kernel's own, a second."""
    rt_runtime_us: int = 0
    """Of each period, for processes with real-time priority; 0: none may have one."""
    seccomp: str = ""
    """`unconfined`, or a profile as docker's JSON; empty: the fleet's own."""
    masked_paths: tuple[str, ...] | None = None
    """Instead of the fleet's own; None: these."""
    read_only_paths: tuple[str, ...] | None = None

    @property
    def has_host_ids(self) -> bool:
        """Whether its root is the host's root."""
        return "user" in self.namespaces
