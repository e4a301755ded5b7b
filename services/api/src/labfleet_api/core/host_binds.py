"""Paths of a host in a container: for the fleet's operators, and for nobody else."""

from collections.abc import Sequence

from labfleet_api.core.host_config import BindOptionsBody, HostConfigBody
from labfleet_api.core.host_config import Mount as MountBody
from labfleet_api.core.mount_targets import checked_target
from labfleet_proto.containers import HostBind
from labfleet_proto.errors import ForbiddenError, InvalidRequestError

_PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_PLAIN = ("ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", "")


def is_host_path(source: str) -> bool:
    """Whether a bind names a path, not a volume."""
    return source.startswith(("/", ".", "~"))


def host_binds(host: HostConfigBody, *, is_operator: bool) -> tuple[HostBind, ...]:
    """The host's paths that a request wants to see, in docker's two ways to say it.

    Raises ForbiddenError for who is no operator, InvalidRequestError.
    """
    found = [
        _of_text(text, is_operator=is_operator)
        for text in host.Binds or ()
        if ":" in text and is_host_path(text)
    ]
    found += [
        _of_mount(mount, is_operator=is_operator)
        for mount in host.Mounts or ()
        if mount.Type == "bind"
    ]
    targets = [bind.target for bind in found]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidRequestError(f"Duplicate mount point: {target}")
    return tuple(found)


def _of_text(text: str, *, is_operator: bool) -> HostBind:
    source, target, *rest = text.split(":")
    _refuse("HostConfig.Binds", source, is_operator=is_operator)
    if len(rest) > 1:
        raise InvalidRequestError(f"invalid volume specification: '{text}'")
    options = rest[0].split(",") if rest else []
    return HostBind(
        source=_absolute(source, text),
        target=checked_target(target),
        read_only="ro" in options,
        propagation=_propagation(options, text),
        mode=rest[0] if rest else "",
        is_made=True,
    )


def _of_mount(mount: MountBody, *, is_operator: bool) -> HostBind:
    _refuse("HostConfig.Mounts", mount.Source, is_operator=is_operator)
    options = mount.BindOptions or BindOptionsBody()
    return HostBind(
        source=_absolute(mount.Source, mount.Source),
        target=checked_target(mount.Target),
        read_only=mount.ReadOnly,
        propagation=_propagation([options.Propagation], options.Propagation),
        is_made=options.CreateMountpoint,
    )


def _refuse(field: str, source: str, *, is_operator: bool) -> None:
    if not is_operator:
        raise ForbiddenError(
            f"{field}: {source}: host paths cannot be mounted; use a named volume or docker cp"
        )


def _absolute(source: str, text: str) -> str:
    if not source.startswith("/") or ".." in source.split("/") or "\0" in source:
        raise InvalidRequestError(
            f"invalid mount config for type \"bind\": invalid mount path: '{text}'"
        )
    return source.rstrip("/") or "/"


def _propagation(options: Sequence[str], text: str) -> str:
    chosen = "rprivate"
    for option in options:
        if option in _PROPAGATIONS:
            chosen = option
        elif option not in _PLAIN:
            raise InvalidRequestError(f"invalid mode: {text}")
    return chosen
