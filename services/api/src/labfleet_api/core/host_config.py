"""`HostConfig` of a create request in docker's own field names."""

from pydantic import JsonValue

from labfleet_api.core.body import Body
from labfleet_proto.errors import ForbiddenError


class PortTarget(Body):
    """One host port of a container port."""

    HostIp: str = ""
    HostPort: str | int = ""


class LogConfigBody(Body):
    """Where logs go: ours always stay on the host, bounded."""

    Type: str = ""
    Config: dict[str, str] | None = None


class RestartPolicyBody(Body):
    """Only `no` is served."""

    Name: str = ""
    MaximumRetryCount: int = 0


class Ulimit(Body):
    """One resource limit."""

    Name: str
    Soft: int
    Hard: int


class VolumeOptionsBody(Body):
    """Options of a volume mount."""

    NoCopy: bool = False
    Labels: dict[str, str] | None = None


class TmpfsOptionsBody(Body):
    """Options of a tmpfs mount."""

    SizeBytes: int = 0
    Mode: int = 0


class Mount(Body):
    """One entry of `HostConfig.Mounts`."""

    Type: str = "volume"
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    VolumeOptions: VolumeOptionsBody | None = None
    TmpfsOptions: TmpfsOptionsBody | None = None


class HostConfigBody(Body):
    """What docker calls the part that depends on the host."""

    Binds: list[str] | None = None
    Mounts: list[Mount] | None = None
    Tmpfs: dict[str, str] | None = None
    PortBindings: dict[str, list[PortTarget] | None] | None = None
    PublishAllPorts: bool = False
    NetworkMode: str = "default"
    AutoRemove: bool = False
    RestartPolicy: RestartPolicyBody | None = None
    LogConfig: LogConfigBody | None = None
    Memory: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    NanoCpus: int = 0
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuShares: int = 0
    CpusetCpus: str = ""
    PidsLimit: int | None = None
    ShmSize: int = 0
    Ulimits: list[Ulimit] | None = None
    CapAdd: list[str] | None = None
    CapDrop: list[str] | None = None
    Privileged: bool = False
    SecurityOpt: list[str] | None = None
    ReadonlyRootfs: bool = False
    Init: bool | None = None
    Dns: list[str] | None = None
    DnsSearch: list[str] | None = None
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

    def refuse_forbidden(self) -> None:
        """Raise ForbiddenError for what no tenant may express, naming field and rule."""
        rules = (
            ("Privileged", self.Privileged, "privileged containers are not allowed"),
            ("Devices", self.Devices, "raw devices are not allowed"),
            ("DeviceCgroupRules", self.DeviceCgroupRules, "raw devices are not allowed"),
            ("CgroupParent", self.CgroupParent, "the cgroup is chosen by the host"),
            ("PidMode", self.PidMode, "namespaces are never shared"),
            ("UTSMode", self.UTSMode, "namespaces are never shared"),
            ("UsernsMode", self.UsernsMode, "every container has its own user namespace"),
            ("CgroupnsMode", self.CgroupnsMode != "private" and self.CgroupnsMode, "only private"),
            (
                "IpcMode",
                self.IpcMode not in ("private", "shareable") and self.IpcMode,
                "only private",
            ),
            ("OomScoreAdj", self.OomScoreAdj < 0, "the score may not be lowered"),
        )
        for field, value, rule in rules:
            if value:
                raise ForbiddenError(f"HostConfig.{field}: {rule}")
        for option in self.SecurityOpt or ():
            if "unconfined" in option or option.startswith(("label", "systempaths")):
                raise ForbiddenError(f"HostConfig.SecurityOpt: {option} is not allowed")
