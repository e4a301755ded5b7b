"""Request bodies of containers and execs in docker's own field names."""

from pydantic import JsonValue

from labfleet_api.core.body import Body
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.place_bodies import NetworkingConfigBody


class HealthConfig(Body):
    """How to find out whether a container does what it should; times in nanoseconds."""

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
    Shell: list[str] | None = None
    OnBuild: list[str] | None = None
    ArgsEscaped: bool = False
    NetworkDisabled: bool = False
    MacAddress: str = ""
    """Of the first network; older clients send it here."""
    Runtime: str = ""
    """docker-py says it here."""
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
