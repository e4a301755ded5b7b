"""From the body of a create request and the image's config to our own specification."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from pydantic import JsonValue

from labfleet_api.core import mounts
from labfleet_api.core.bodies import CreateBody, HostConfigBody, PortTarget
from labfleet_proto import privileges
from labfleet_proto.containers import (
    ContainerSpec,
    Limits,
    NetworkAttachment,
    PortBinding,
)
from labfleet_proto.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotImplementedYetError,
)
from labfleet_proto.ids import ContainerId
from labfleet_proto.signals import number_of

DEFAULT_MEMORY_BYTES = 512 << 20
LEAST_MEMORY_BYTES = 6 << 20
DEFAULT_CPU_MILLIS = 1000
DEFAULT_PIDS = 512
MOST_FILES = 20_000
CONSTRAINT_LABEL = "labfleet.constraint"
_MOST_TEXT = 128 << 10
"""Longest environment entry or argument: the kernel's MAX_ARG_STRLEN."""
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?")
_HOST_PORT = re.compile(r"([0-9]{1,5})(-[0-9]{1,5})?|")
_CPUSET = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")
_NAMED_MODES = ("default", "bridge", "")


@dataclass(frozen=True)
class ImageDefaults:
    """What an image's config says of its containers."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""


def image_defaults(config: Mapping[str, JsonValue]) -> ImageDefaults:
    """Read the `config` object of an OCI image config."""
    inner = config.get("config")
    said: Mapping[str, JsonValue] = inner if isinstance(inner, dict) else {}
    labels = said.get("Labels")
    return ImageDefaults(
        env=_texts(said.get("Env")),
        entrypoint=_texts(said.get("Entrypoint")),
        command=_texts(said.get("Cmd")),
        working_dir=str(said.get("WorkingDir") or ""),
        user=str(said.get("User") or ""),
        labels=tuple((key, str(value)) for key, value in labels.items())
        if isinstance(labels, dict)
        else (),
        exposed_ports=_texts(said.get("ExposedPorts")),
        volumes=_texts(said.get("Volumes")),
        stop_signal=str(said.get("StopSignal") or ""),
    )


def _texts(value: JsonValue) -> tuple[str, ...]:
    if isinstance(value, list | dict):
        return tuple(str(each) for each in value)
    return ()


def specification(
    container: ContainerId,
    body: CreateBody,
    image: ImageDefaults,
    networks: tuple[NetworkAttachment, ...],
    *,
    new_volume: Callable[[], str],
) -> ContainerSpec:
    """Merge request, image and defaults; `new_volume` gives names to anonymous volumes.

    Raises InvalidRequestError, ForbiddenError or NotImplementedYetError, naming field and rule.
    """
    host = body.HostConfig or HostConfigBody()
    refuse(body, host)
    entrypoint, command = _command(body, image)
    exposed = dict.fromkeys(
        _port_name(text) for text in (*image.exposed_ports, *(body.ExposedPorts or {}))
    )
    return ContainerSpec(
        entrypoint=entrypoint,
        command=command,
        env=_environment(image.env, body.Env or ()),
        working_dir=_working_dir(body.WorkingDir or image.working_dir or "/"),
        user=body.User or image.user,
        hostname=_hostname(body.Hostname) or container[:12],
        domainname=body.Domainname,
        labels={**dict(image.labels), **(body.Labels or {})},
        is_tty=body.Tty,
        open_stdin=body.OpenStdin,
        stdin_once=body.StdinOnce,
        attach=_attached(body),
        stop_signal=_stop_signal(body.StopSignal or image.stop_signal or "SIGTERM"),
        stop_timeout_s=_stop_timeout(body.StopTimeout),
        limits=_limits(host),
        ports=_ports(host, exposed),
        exposed_ports=tuple(exposed),
        mounts=mounts.volumes(body, host, image.volumes, new_volume),
        tmpfs=mounts.tmpfs(host),
        network_mode=host.NetworkMode or "default",
        networks=networks,
        auto_remove=host.AutoRemove,
        is_rootfs_read_only=host.ReadonlyRootfs,
        with_init=bool(host.Init),
        no_new_privileges=any(
            option.startswith("no-new-privileges") and not option.endswith("false")
            for option in host.SecurityOpt or ()
        ),
        cap_add=_capabilities(host.CapAdd),
        cap_drop=_capabilities(host.CapDrop),
        extra_hosts=_extra_hosts(host.ExtraHosts or ()),
        dns=tuple(host.Dns or ()),
        dns_search=tuple(host.DnsSearch or ()),
        sysctls=host.Sysctls or {},
        group_add=tuple(host.GroupAdd or ()),
    )


def refuse(body: CreateBody, host: HostConfigBody) -> None:
    """Raise for what may not be, or cannot be yet."""
    host.refuse_forbidden()
    mounts.refuse_host_paths(host)
    privileges.capabilities(host.CapAdd or (), host.CapDrop or ())
    privileges.check_sysctls(host.Sysctls or ())
    body.refuse_unserved()
    policy = host.RestartPolicy.Name if host.RestartPolicy else ""
    test = body.Healthcheck.Test if body.Healthcheck else None
    options = [each for each in host.SecurityOpt or () if not each.startswith("no-new-privileges")]
    missing = (
        ("HostConfig.SecurityOpt " + " ".join(options), bool(options)),
        ("HostConfig.RestartPolicy " + policy, policy not in ("", "no")),
        ("HostConfig.DeviceRequests (--gpus)", bool(host.DeviceRequests)),
        ("HostConfig.VolumesFrom", bool(host.VolumesFrom)),
        ("Healthcheck", bool(test) and test != ["NONE"]),
        ("HostConfig.MemorySwap", host.MemorySwap not in (0, -1, host.Memory)),
        (
            "HostConfig.LogConfig.Type " + (host.LogConfig.Type if host.LogConfig else ""),
            host.LogConfig is not None and host.LogConfig.Type not in ("", "json-file", "local"),
        ),
    )
    for name, is_asked in missing:
        if is_asked:
            raise NotImplementedYetError(f"labfleet: {name} is not there yet")


def constraints(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Placement constraints of the label `labfleet.constraint`, separated by commas."""
    text = labels.get(CONSTRAINT_LABEL, "")
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _words(value: list[str] | str | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _command(body: CreateBody, image: ImageDefaults) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Docker's merge: an entrypoint takes the image's command away too; `[""]` means none."""
    given, command = _words(body.Entrypoint), _words(body.Cmd)
    entrypoint = () if given == ("",) else given
    if not given:
        command = command or image.command
        entrypoint = image.entrypoint if body.Entrypoint is None else ()
    if not entrypoint + command:
        raise InvalidRequestError("no command specified")
    _check_texts("Cmd", entrypoint + command)
    return entrypoint, command


def _check_texts(name: str, texts: Iterable[str]) -> None:
    for text in texts:
        if "\0" in text:
            raise InvalidRequestError(f"{name}: a NUL byte is not allowed")
        if len(text.encode()) > _MOST_TEXT:
            raise InvalidRequestError(f"{name}: an entry is longer than {_MOST_TEXT} bytes")


def _environment(base: Iterable[str], added: Sequence[str]) -> tuple[str, ...]:
    """Later entries replace earlier ones of the same name; a name alone removes it, as docker does."""
    _check_texts("Env", added)
    merged: dict[str, str] = {}
    for entry in (*base, *added):
        name, sign, _ = entry.partition("=")
        if not name:
            raise InvalidRequestError(f"invalid environment variable: {entry}")
        if sign:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return tuple(merged.values())


def _working_dir(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidRequestError(
            f"the working directory '{path}' is invalid, it needs to be an absolute path"
        )
    return path


def _hostname(text: str) -> str:
    if text and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?", text) is None:
        raise InvalidRequestError(f"invalid hostname format: {text}")
    return text


def _stop_signal(name: str) -> str:
    number_of(name)
    return name


def _extra_hosts(entries: Sequence[str]) -> tuple[str, ...]:
    for entry in entries:
        name, _, address = entry.partition(":")
        if address == "host-gateway":
            raise ForbiddenError(
                f"HostConfig.ExtraHosts: {entry}: containers do not reach the host they run on"
            )
        if not name or not _is_address(address):
            raise InvalidRequestError(f"invalid IP address in add-host: {entry!r}")
    return tuple(entries)


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _stop_timeout(seconds: int | None) -> int:
    if seconds is None:
        return 10
    if seconds < -1:
        raise InvalidRequestError(f"StopTimeout: {seconds} is below -1")
    return 365 * 86_400 if seconds == -1 else seconds


def _attached(body: CreateBody) -> tuple[str, ...]:
    named = (
        ("stdin", body.AttachStdin),
        ("stdout", body.AttachStdout),
        ("stderr", body.AttachStderr),
    )
    return tuple(name for name, is_set in named if is_set)


def _limits(host: HostConfigBody) -> Limits:
    for name in ("Memory", "NanoCpus", "CpuPeriod", "CpuShares", "ShmSize"):
        if getattr(host, name) < 0:
            raise InvalidRequestError(f"HostConfig.{name}: {getattr(host, name)} is negative")
    if 0 < host.Memory < LEAST_MEMORY_BYTES:
        raise InvalidRequestError("Minimum memory limit allowed is 6MB")
    if host.CpusetCpus and _CPUSET.fullmatch(host.CpusetCpus) is None:
        raise InvalidRequestError(f"Invalid value {host.CpusetCpus} for cpuset cpus")
    pids = host.PidsLimit or 0
    if pids < -1:
        raise InvalidRequestError(f"HostConfig.PidsLimit: {pids} is below -1")
    return Limits(
        memory_bytes=host.Memory or DEFAULT_MEMORY_BYTES,
        cpu_millis=_cpu_millis(host),
        pids=pids if pids > 0 else DEFAULT_PIDS,
        cpu_shares=host.CpuShares or None,
        cpuset_cpus=host.CpusetCpus or None,
        shm_bytes=host.ShmSize or (64 << 20),
        nofile=_nofile(host),
    )


def _nofile(host: HostConfigBody) -> int:
    nofile = MOST_FILES
    for limit in host.Ulimits or ():
        if limit.Name != "nofile":
            raise NotImplementedYetError(
                f"labfleet: HostConfig.Ulimits {limit.Name} is not there yet"
            )
        hard = MOST_FILES if limit.Hard == -1 else limit.Hard
        if hard < 0 or (limit.Hard != -1 and not 0 <= limit.Soft <= hard):
            raise InvalidRequestError(
                f"HostConfig.Ulimits: nofile: soft {limit.Soft} and hard {limit.Hard}: "
                "the soft limit must be less than or equal to the hard limit"
            )
        nofile = min(nofile, hard)
    return nofile


def _cpu_millis(host: HostConfigBody) -> int:
    if host.NanoCpus and (host.CpuQuota > 0 or host.CpuPeriod > 0):
        raise InvalidRequestError(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set"
        )
    if host.NanoCpus:
        if host.NanoCpus < 10_000_000:
            raise InvalidRequestError("HostConfig.NanoCpus: the least is 0.01 CPUs")
        return host.NanoCpus // 1_000_000
    if host.CpuQuota > 0:
        period = host.CpuPeriod or 100_000
        if not 1000 <= period <= 1_000_000 or host.CpuQuota < 1000:
            raise InvalidRequestError(
                "HostConfig.CpuQuota: at least 1000 us, with a CpuPeriod of 1000 to 1000000 us"
            )
        return max(10, host.CpuQuota * 1000 // period)
    return DEFAULT_CPU_MILLIS


def _port_name(text: str) -> str:
    found = _PORT.fullmatch(text)
    if found is None or not 0 < int(found[1]) <= 65_535:
        raise InvalidRequestError(f"invalid port specification: {text!r}")
    return f"{int(found[1])}/{found[2] or 'tcp'}"


def _ports(host: HostConfigBody, exposed: dict[str, None]) -> tuple[PortBinding, ...]:
    bindings: list[PortBinding] = []
    for text, targets in (host.PortBindings or {}).items():
        name = _port_name(text)
        exposed.setdefault(name)
        for target in targets or [PortTarget()]:
            bindings.append(_binding(name, str(target.HostPort), target.HostIp))
    if host.PublishAllPorts:
        bound = {f"{each.container_port}/{each.protocol}" for each in bindings}
        bindings += [_binding(name, "", "") for name in exposed if name not in bound]
    if host.NetworkMode == "none" and bindings:
        raise InvalidRequestError(
            "HostConfig.PortBindings: a container without network has no ports"
        )
    return tuple(bindings)


def _binding(name: str, asked: str, address: str) -> PortBinding:
    port, _, protocol = name.partition("/")
    if protocol == "sctp":
        raise NotImplementedYetError("labfleet: publishing sctp ports is not there yet")
    found = _HOST_PORT.fullmatch(asked)
    if found is None or int(found[1] or 0) > 65_535:
        raise InvalidRequestError(f"invalid port specification: {asked!r}")
    if found[2]:
        raise NotImplementedYetError(
            f"labfleet: HostPort {asked}: a range to choose from is not there yet"
        )
    return PortBinding(
        container_port=int(port),
        protocol=protocol,
        host_address=address if address not in ("", "::") else "0.0.0.0",  # noqa: S104
        host_port=int(asked or 0) or None,
    )


def _capabilities(names: list[str] | None) -> tuple[str, ...]:
    return tuple(name.upper().removeprefix("CAP_") for name in names or ())


def wanted_networks(body: CreateBody) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """Names of the networks to join, first the one of the mode, with aliases and address.

    The empty name means the tenant's default network, which who names only others does not join
    (as docker). Raises ForbiddenError.
    """
    host = body.HostConfig or HostConfigBody()
    mode = host.NetworkMode
    endpoints = (body.NetworkingConfig.EndpointsConfig if body.NetworkingConfig else None) or {}
    if mode == "host" or mode.startswith(("container:", "ns:")):
        raise ForbiddenError(f"HostConfig.NetworkMode: {mode}: namespaces are never shared")
    if mode == "none" or body.NetworkDisabled:
        return {}
    first = "" if mode in _NAMED_MODES else mode
    found: dict[str, tuple[tuple[str, ...], str | None]] = {}
    if first or not endpoints:
        found[first] = ((), None)
    for name, endpoint in endpoints.items():
        key = "" if name in _NAMED_MODES else name
        if endpoint is None:
            found.setdefault(key, ((), None))
            continue
        if endpoint.Links or endpoint.MacAddress:
            raise NotImplementedYetError(
                f"labfleet: EndpointsConfig.{name}: Links and MacAddress are not there yet"
            )
        wish = endpoint.IPAMConfig
        address = wish.IPv4Address if wish and wish.IPv4Address else None
        found[key] = (tuple(endpoint.Aliases or ()), address)
    return found
