"""Request bodies in docker's own field names. What is set and not served is refused by name."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from labfleet_proto.errors import ForbiddenError, NotImplementedYetError


class Body(BaseModel):
    """Base: fields of docker that we do not serve land in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def refuse_unserved(self, prefix: str = "") -> None:
        """Raise NotImplementedYetError for the first unserved field that says something, at any depth."""
        for name, value in (self.model_extra or {}).items():
            if value not in (None, "", 0, False) and value not in ([], {}):
                raise NotImplementedYetError(f"labfleet: {prefix}{name} is not there yet")
        for name in type(self).model_fields:
            for body in _bodies(getattr(self, name)):
                body.refuse_unserved(f"{prefix}{name}.")


def _bodies(value: object) -> Iterator[Body]:
    """The bodies in a field: itself, of a list, of a map."""
    if isinstance(value, Body):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _bodies(each)


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


class IpamConfig(Body):
    """Address wishes of an endpoint."""

    IPv4Address: str = ""
    IPv6Address: str = ""


class EndpointConfig(Body):
    """How a container joins a network. Facts of an earlier life are ignored, as docker does."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    IPAMConfig: IpamConfig | None = None
    Aliases: list[str] | None = None
    Links: list[str] | None = None
    MacAddress: str = ""


class NetworkingConfigBody(Body):
    """Networks to join."""

    EndpointsConfig: dict[str, EndpointConfig | None] | None = None


class HealthConfig(Body):
    """Health checks are not served yet."""

    Test: list[str] | None = None
    Interval: int = 0
    Timeout: int = 0
    Retries: int = 0
    StartPeriod: int = 0
    StartInterval: int = 0


class CreateBody(Body):
    """Body of `POST /containers/create`."""

    Image: str = ""
    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: list[str] | None = None
    Cmd: list[str] | str | None = None
    Entrypoint: list[str] | str | None = None
    ExposedPorts: dict[str, JsonValue] | None = None
    Volumes: dict[str, JsonValue] | None = None
    WorkingDir: str = ""
    Labels: dict[str, str] | None = None
    StopSignal: str = ""
    StopTimeout: int | None = None
    NetworkDisabled: bool = False
    Healthcheck: HealthConfig | None = None
    HostConfig: HostConfigBody | None = None
    NetworkingConfig: NetworkingConfigBody | None = None


class ExecBody(Body):
    """Body of `POST /containers/{id}/exec`."""

    Cmd: list[str] | None = None
    Env: list[str] | None = None
    User: str = ""
    WorkingDir: str = ""
    Tty: bool = False
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    Detach: bool = False
    DetachKeys: str = ""
    Container: str = ""
    """Sent by old clients beside the path; ignored, as docker does."""
    Privileged: bool = False
    ConsoleSize: list[int] | None = None


class ExecStartBody(Body):
    """Body of `POST /exec/{id}/start`."""

    Detach: bool = False
    Tty: bool = False
    ConsoleSize: list[int] | None = None


class IpamPool(Body):
    """One address pool of a network."""

    Subnet: str = ""
    Gateway: str = ""
    IPRange: str = ""


class Ipam(Body):
    """Address management of a network."""

    Driver: str = ""
    Config: list[IpamPool] | None = None
    Options: dict[str, str] | None = None


class NetworkBody(Body):
    """Body of `POST /networks/create`."""

    Name: str = ""
    CheckDuplicate: bool = True
    Driver: str = ""
    Scope: str = ""
    Internal: bool = False
    Attachable: bool = False
    EnableIPv4: bool | None = None
    IPAM: Ipam | None = None
    Options: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


class VolumeBody(Body):
    """Body of `POST /volumes/create`."""

    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] | None = None
    Labels: dict[str, str] | None = Field(default=None)
