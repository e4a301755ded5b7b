"""`HostConfig` of a create request in docker's own field names."""

from pydantic import JsonValue

from labfleet_api.core.body import Body
from labfleet_api.core.limits_body import LimitsBody


class PortTarget(Body):
    """One host port of a container port."""

    HostIp: str = ""
    HostPort: str | int = ""


class LogConfigBody(Body):
    """Where logs go: ours always stay on the host, bounded."""

    Type: str = ""
    Config: dict[str, str] | None = None


class Ulimit(Body):
    """One resource limit."""

    Name: str
    Soft: int
    Hard: int


class DriverConfigBody(Body):
    """How a volume is made, if it is not there."""

    Name: str = ""
    Options: dict[str, str] | None = None


class VolumeOptionsBody(Body):
    """Options of a volume mount."""

    NoCopy: bool = False
    Labels: dict[str, str] | None = None
    Subpath: str = ""
    DriverConfig: DriverConfigBody | None = None


class TmpfsOptionsBody(Body):
    """Options of a tmpfs mount."""

    SizeBytes: int = 0
    Mode: int = 0
    Options: list[list[str]] | None = None


class BindOptionsBody(Body):
    """Options of a mount of a host's path."""

    Propagation: str = ""
    NonRecursive: bool = False
    """Mounts below the path are never shown."""
    CreateMountpoint: bool = False


class Mount(Body):
    """One entry of `HostConfig.Mounts`."""

    Type: str = "volume"
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: BindOptionsBody | None = None
    VolumeOptions: VolumeOptionsBody | None = None
    TmpfsOptions: TmpfsOptionsBody | None = None


class HostConfigBody(LimitsBody):
    """What docker calls the part that depends on the host."""

    Binds: list[str] | None = None
    Mounts: list[Mount] | None = None
    Tmpfs: dict[str, str] | None = None
    PortBindings: dict[str, list[PortTarget] | None] | None = None
    PublishAllPorts: bool = False
    NetworkMode: str = "default"
    AutoRemove: bool = False
    LogConfig: LogConfigBody | None = None
    KernelMemoryTCP: int = 0
    OomKillDisable: bool | None = None
    CpuRealtimePeriod: int = 0
    CpuRealtimeRuntime: int = 0
    CpuCount: int = 0
    CpuPercent: int = 0
    IOMaximumIOps: int = 0
    IOMaximumBandwidth: int = 0
    """The last four are for Windows; docker ignores them elsewhere too."""
    BlkioWeightDevice: list[JsonValue] | None = None
    BlkioDeviceReadBps: list[JsonValue] | None = None
    BlkioDeviceWriteBps: list[JsonValue] | None = None
    BlkioDeviceReadIOps: list[JsonValue] | None = None
    BlkioDeviceWriteIOps: list[JsonValue] | None = None
    ShmSize: int = 0
    Ulimits: list[Ulimit] | None = None
    CapAdd: list[str] | None = None
    CapDrop: list[str] | None = None
    Privileged: bool = False
    SecurityOpt: list[str] | None = None
    ReadonlyRootfs: bool = False
    MaskedPaths: list[str] | None = None
    ReadonlyPaths: list[str] | None = None
    StorageOpt: dict[str, str] | None = None
    Runtime: str = ""
    Isolation: str = ""
    Annotations: dict[str, str] | None = None
    VolumeDriver: str = ""
    Cgroup: str = ""
    Init: bool | None = None
    Dns: list[str] | None = None
    DnsSearch: list[str] | None = None
    DnsOptions: list[str] | None = None
    ExtraHosts: list[str] | None = None
    Links: list[str] | None = None
    GroupAdd: list[str] | None = None
    Sysctls: dict[str, str] | None = None
    Devices: list[JsonValue] | None = None
    DeviceRequests: list[JsonValue] | None = None
    DeviceCgroupRules: list[str] | None = None
    VolumesFrom: list[str] | None = None
    PidMode: str = ""
    IpcMode: str = ""
    UTSMode: str = ""
    UsernsMode: str = ""
    CgroupnsMode: str = ""
    CgroupParent: str = ""
    ConsoleSize: list[int] | None = None
    """Size of the client's terminal at the time; the client sends it again as a resize."""
    OomScoreAdj: int = 0
    ContainerIDFile: str = ""
    """A file of the client's, which writes it itself; docker ignores it too."""
