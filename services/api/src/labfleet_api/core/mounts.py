"""From docker's three ways to ask for mounts to our volumes and tmpfs."""

from collections.abc import Callable, Iterable

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.host_config import HostConfigBody, TmpfsOptionsBody
from labfleet_api.core.host_config import Mount as MountBody
from labfleet_api.core.names import checked_volume_name
from labfleet_proto.containers import VolumeMount
from labfleet_proto.errors import ForbiddenError, InvalidRequestError, NotImplementedYetError


def tmpfs(host: HostConfigBody) -> dict[str, str]:
    """Targets of file systems in memory, with their options."""
    found = dict(host.Tmpfs or {})
    for mount in host.Mounts or ():
        if mount.Type == "tmpfs":
            found[_target(mount.Target)] = _tmpfs_options(mount)
    return {_target(target): options for target, options in found.items()}


def _tmpfs_options(mount: MountBody) -> str:
    given = mount.TmpfsOptions or TmpfsOptionsBody()
    words = (
        f"size={given.SizeBytes}" if given.SizeBytes else "",
        f"mode={given.Mode:o}" if given.Mode else "",
        "ro" if mount.ReadOnly else "",
    )
    return ",".join(word for word in words if word)


def volumes(
    body: CreateBody,
    host: HostConfigBody,
    of_image: Iterable[str],
    new_volume: Callable[[], str],
) -> tuple[VolumeMount, ...]:
    """Named and anonymous volumes of a request and its image, each target once.

    Raises InvalidRequestError, ForbiddenError (host paths), NotImplementedYetError.
    """
    found: dict[str, VolumeMount] = {}
    for mount in [_bind(text, new_volume) for text in host.Binds or ()]:
        _add(found, mount)
    for each in host.Mounts or ():
        if each.Type != "tmpfs":
            _add(found, _mount(each, new_volume))
    in_memory = set(tmpfs(host))
    for target in in_memory & set(found):
        raise InvalidRequestError(f"Duplicate mount point: {target}")
    for target in (*(body.Volumes or {}), *of_image):
        where = _target(target)
        if where not in found and where not in in_memory:
            found[where] = VolumeMount(volume=new_volume(), target=where, is_anonymous=True)
    return tuple(found.values())


def _add(found: dict[str, VolumeMount], mount: VolumeMount) -> None:
    if mount.target in found:
        raise InvalidRequestError(f"Duplicate mount point: {mount.target}")
    found[mount.target] = mount


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidRequestError(f"invalid mount path: '{path}' mount path must be absolute")
    plain = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    is_kernels = (
        plain == "/dev" or plain.startswith(("/proc/", "/sys/")) or plain in ("/proc", "/sys")
    )
    if plain == "/" or ".." in plain.split("/") or is_kernels:
        raise InvalidRequestError(f"invalid specification: destination can't be '{path}'")
    return plain


def _bind(text: str, new_volume: Callable[[], str]) -> VolumeMount:
    parts = text.split(":")
    if len(parts) == 1:
        return VolumeMount(volume=new_volume(), target=_target(parts[0]), is_anonymous=True)
    source, target = parts[0], parts[1]
    options = parts[2].split(",") if len(parts) > 2 else []
    if len(parts) > 3 or not source:
        raise InvalidRequestError(f"invalid volume specification: '{text}'")
    _refuse_host_path("HostConfig.Binds", source)
    for option in options:
        if option not in ("ro", "rw", "nocopy", "z", "Z", ""):
            raise InvalidRequestError(f"invalid mode: {parts[2]}")
    return VolumeMount(
        volume=checked_volume_name(source),
        target=_target(target),
        read_only="ro" in options,
        copy_up="nocopy" not in options,
    )


def _refuse_host_path(field: str, source: str) -> None:
    if source.startswith(("/", ".", "~")):
        raise ForbiddenError(
            f"{field}: {source}: host paths cannot be mounted; use a named volume or docker cp"
        )


def refuse_host_paths(host: HostConfigBody) -> None:
    """Raise ForbiddenError for a mount of the host's own files."""
    for mount in host.Mounts or ():
        if mount.Type == "bind":
            _refuse_host_path("HostConfig.Mounts", mount.Source or "/")
            raise ForbiddenError(f"HostConfig.Mounts: {mount.Source}: host paths cannot be mounted")


def _mount(body: MountBody, new_volume: Callable[[], str]) -> VolumeMount:
    if body.Type != "volume":
        raise NotImplementedYetError(
            f"labfleet: HostConfig.Mounts of type {body.Type} is not there yet"
        )
    name = checked_volume_name(body.Source) if body.Source else new_volume()
    return VolumeMount(
        volume=name,
        target=_target(body.Target),
        read_only=body.ReadOnly,
        copy_up=not (body.VolumeOptions and body.VolumeOptions.NoCopy),
        is_anonymous=not body.Source,
    )
