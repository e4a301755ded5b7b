"""From the body of a create request and the image's config to our own specification."""

from collections.abc import Callable, Collection, Mapping

from pydantic import JsonValue

from labfleet_api.core import (
    companions,
    host_binds,
    limits,
    log_config,
    mounts,
    names_inside,
    policies,
    ports,
    powers,
    process,
    refusals,
    security,
    ulimits,
)
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.body import Body
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.image_defaults import ImageDefaults
from labfleet_proto.containers import ContainerSpec, NetworkAttachment, VolumeMount
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import ContainerId
from labfleet_proto.signals import number_of

_SHOWN = ("Volumes", "Shell", "OnBuild", "ArgsEscaped", "MacAddress", "StopTimeout")
CONSTRAINT_LABEL = "labfleet.constraint"


def specification(  # noqa: PLR0913 - the request, and what is known beside it
    container: ContainerId,
    body: CreateBody,
    image: ImageDefaults,
    networks: tuple[NetworkAttachment, ...],
    *,
    new_volume: Callable[[], str],
    inherited: tuple[VolumeMount, ...] = (),
    is_operator: bool = False,
) -> ContainerSpec:
    """Merge request, image and defaults; `new_volume` gives names to anonymous volumes.

    Raises InvalidRequestError, ForbiddenError or NotImplementedYetError, naming field and rule.
    """
    host = body.HostConfig or HostConfigBody()
    refuse(body, host, is_operator=is_operator)
    more = powers.powers(host) if is_operator else None
    is_on_host = more is not None and "network" in more.namespaces
    bound = host_binds.host_binds(host, is_operator=is_operator)
    entrypoint, command = process.command(body, image)
    exposed = ports.exposed((*image.exposed_ports, *(body.ExposedPorts or {})))
    return ContainerSpec(
        entrypoint=entrypoint,
        command=command,
        env=process.environment(image.env, body.Env or ()),
        working_dir=process.working_dir(body.WorkingDir or image.working_dir or "/"),
        user=body.User or image.user,
        hostname=process.hostname(body.Hostname) or ("" if is_on_host else container[:12]),
        domainname=process.domainname(body.Domainname),
        labels={**dict(image.labels), **(body.Labels or {})},
        is_tty=body.Tty,
        terminal_size=process.terminal_size(host.ConsoleSize if body.Tty else None),
        open_stdin=body.OpenStdin,
        stdin_once=body.StdinOnce,
        attach=_attached(body),
        stop_signal=_stop_signal(body.StopSignal or image.stop_signal or "SIGTERM"),
        stop_timeout_s=_stop_timeout(body.StopTimeout),
        limits=limits.limits(host),
        ports=() if is_on_host else ports.bindings(host, exposed),
        exposed_ports=tuple(exposed),
        mounts=mounts.volumes(body, host, image.volumes, new_volume, inherited, bound),
        host_binds=bound,
        tmpfs=mounts.tmpfs(host),
        network_mode=host.NetworkMode or "default",
        networks=networks,
        auto_remove=host.AutoRemove,
        restart=policies.policy_of_new(host),
        healthcheck=policies.health_check(body.Healthcheck, image.health, image.shell),
        is_rootfs_read_only=host.ReadonlyRootfs,
        with_init=bool(host.Init),
        no_new_privileges=security.no_new_privileges(
            host.SecurityOpt or (), is_operator=is_operator
        ),
        cap_add=_capabilities(host.CapAdd),
        cap_drop=_capabilities(host.CapDrop),
        extra_hosts=names_inside.extra_hosts(host.ExtraHosts or ()),
        dns=names_inside.servers(host.Dns or ()),
        dns_search=names_inside.plain("DnsSearch", host.DnsSearch or ()),
        dns_options=names_inside.plain("DnsOptions", host.DnsOptions or ()),
        sysctls=host.Sysctls or {},
        group_add=tuple(host.GroupAdd or ()),
        ulimits=ulimits.ulimits(host.Ulimits or ()),
        oom_score_adj=host.OomScoreAdj,
        hidden_paths=() if is_operator else security.hidden_paths(host),
        read_only_paths=() if is_operator else security.read_only_paths(host),
        powers=more,
        shm=companions.shared_memory(host),
        asked_host_config=_said(body, only=("Runtime",)) | _said(host),
        asked_config=_said(body, only=_SHOWN),
        log=log_config.settings(host.LogConfig),
    )


def refuse(body: CreateBody, host: HostConfigBody, *, is_operator: bool = False) -> None:
    """Raise for what may not be, or cannot be yet."""
    refusals.refuse_forbidden(host, is_operator=is_operator)
    security.no_new_privileges(host.SecurityOpt or (), is_operator=is_operator)
    if is_operator and body.Hostname and host.UTSMode == "host":
        raise InvalidRequestError("conflicting options: hostname and the UTS mode")
    if not is_operator:
        security.hidden_paths(host)
        security.read_only_paths(host)
    refusals.refuse_absent(host)
    refusals.check_runtime(body.Runtime)
    body.refuse_unserved()


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


def _said(body: Body, only: Collection[str] | None = None) -> dict[str, JsonValue]:
    """What a request says beyond the defaults, for inspect to echo."""
    said = body.model_dump(mode="json", exclude_unset=True)
    return {
        name: value
        for name, value in said.items()
        if value not in (None, "", 0, False, [], {}) and (only is None or name in only)
    }
