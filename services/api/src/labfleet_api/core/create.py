"""From the body of a create request and the image's config to our own specification."""

from collections.abc import Callable, Mapping

from labfleet_api.core import limits, mounts, names_inside, ports, process
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.image_defaults import ImageDefaults
from labfleet_proto import privileges
from labfleet_proto.containers import ContainerSpec, NetworkAttachment
from labfleet_proto.errors import InvalidRequestError, NotImplementedYetError
from labfleet_proto.ids import ContainerId
from labfleet_proto.signals import number_of

CONSTRAINT_LABEL = "labfleet.constraint"


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
    entrypoint, command = process.command(body, image)
    exposed = dict.fromkeys(
        ports.port_name(text) for text in (*image.exposed_ports, *(body.ExposedPorts or {}))
    )
    return ContainerSpec(
        entrypoint=entrypoint,
        command=command,
        env=process.environment(image.env, body.Env or ()),
        working_dir=process.working_dir(body.WorkingDir or image.working_dir or "/"),
        user=body.User or image.user,
        hostname=process.hostname(body.Hostname) or container[:12],
        domainname=body.Domainname,
        labels={**dict(image.labels), **(body.Labels or {})},
        is_tty=body.Tty,
        open_stdin=body.OpenStdin,
        stdin_once=body.StdinOnce,
        attach=_attached(body),
        stop_signal=_stop_signal(body.StopSignal or image.stop_signal or "SIGTERM"),
        stop_timeout_s=_stop_timeout(body.StopTimeout),
        limits=limits.limits(host),
        ports=ports.bindings(host, exposed),
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
        extra_hosts=names_inside.extra_hosts(host.ExtraHosts or ()),
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


def _stop_signal(name: str) -> str:
    number_of(name)
    return name


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


def _capabilities(names: list[str] | None) -> tuple[str, ...]:
    return tuple(name.upper().removeprefix("CAP_") for name in names or ())
