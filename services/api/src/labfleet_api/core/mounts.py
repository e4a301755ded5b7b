"""From docker's three ways to ask for mounts to our volumes and tmpfs."""

import re
from collections.abc import Callable, Iterable

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.host_binds import is_host_path
from labfleet_api.core.host_config import (
    DriverConfigBody,
    HostConfigBody,
    TmpfsOptionsBody,
    VolumeOptionsBody,
)
from labfleet_api.core.host_config import Mount as MountBody
from labfleet_api.core.mount_targets import checked_target
from labfleet_api.core.names import checked_volume_name
from labfleet_proto.containers import ContainerSpec, HostBind, VolumeMount
from labfleet_proto.errors import (
    InvalidRequestError,
    NotFoundError,
    NotImplementedYetError,
)
from labfleet_proto.volume_options import volume_kind

_TMPFS_WORD = re.compile(
    r"size=[0-9]+[kKmMgG%]?|mode=[0-7]{3,4}|(uid|gid|nr_inodes|nr_blocks)=[0-9]+[kKmMgG]?"
    r"|ro|rw|(no)?(exec|suid|dev|atime|diratime|relatime)|strictatime|(a)?sync|(r)?private|(r)?slave|(r)?shared"
)


def tmpfs(host: HostConfigBody) -> dict[str, str]:
    """Targets of file systems in memory, with their options."""
    found = dict(host.Tmpfs or {})
    for mount in host.Mounts or ():
        if mount.Type == "tmpfs":
            found[checked_target(mount.Target)] = _tmpfs_options(mount)
    return {checked_target(target): _checked_tmpfs(options) for target, options in found.items()}


def _tmpfs_options(mount: MountBody) -> str:
    given = mount.TmpfsOptions or TmpfsOptionsBody()
    words = (
        f"size={given.SizeBytes}" if given.SizeBytes else "",
        f"mode={given.Mode:o}" if given.Mode else "",
        "ro" if mount.ReadOnly else "",
        *("=".join(each) for each in given.Options or ()),
    )
    return ",".join(word for word in words if word)


def _checked_tmpfs(options: str) -> str:
    """Check mount options of a tmpfs. Raises InvalidRequestError in docker's words."""
    for word in options.split(","):
        if word and _TMPFS_WORD.fullmatch(word) is None:
            raise InvalidRequestError(f'invalid tmpfs option "{word}"')
    return options


def inherited(sources: Iterable[tuple[str, ContainerSpec]]) -> tuple[VolumeMount, ...]:
    """Volumes of other containers: `VolumesFrom` entries, each with what it names.

    Raises InvalidRequestError.
    """
    found: dict[str, VolumeMount] = {}
    for text, spec in sources:
        mode = text.partition(":")[2]
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidRequestError(f"invalid mode: {mode}")
        for mount in spec.mounts:
            found[mount.target] = mount.model_copy(
                update={
                    "read_only": mount.read_only or mode == "ro",
                    "is_anonymous": False,
                    "copy_up": False,
                }
            )
    return tuple(found.values())


def volumes(
    body: CreateBody,
    host: HostConfigBody,
    of_image: Iterable[str],
    new_volume: Callable[[], str],
    others: Iterable[VolumeMount] = (),
    host_binds: Iterable[HostBind] = (),
) -> tuple[VolumeMount, ...]:
    """Named and anonymous volumes of a request and its image, each target once.

    `others` are those of other containers; the request's own come before them. Where `host_binds` are, no volume is.

    Raises InvalidRequestError, NotFoundError, NotImplementedYetError.
    """
    found: dict[str, VolumeMount] = {}
    for text in host.Binds or ():
        if ":" not in text or not is_host_path(text):
            _check_driver(host.VolumeDriver)
            _add(found, _bind(text, new_volume))
    for each in host.Mounts or ():
        if each.Type not in ("tmpfs", "bind"):
            _add(found, _mount(each, new_volume))
    found = {mount.target: mount for mount in others} | found
    in_memory = set(tmpfs(host))
    bound = {bind.target for bind in host_binds}
    for target in (in_memory & set(found)) | (bound & (in_memory | set(found))):
        raise InvalidRequestError(f"Duplicate mount point: {target}")
    for target in (*(body.Volumes or {}), *of_image):
        where = checked_target(target)
        if where not in found and where not in in_memory | bound:
            _check_driver(host.VolumeDriver)
            found[where] = VolumeMount(volume=new_volume(), target=where, is_anonymous=True)
    return tuple(found.values())


def _add(found: dict[str, VolumeMount], mount: VolumeMount) -> None:
    if mount.target in found:
        raise InvalidRequestError(f"Duplicate mount point: {mount.target}")
    found[mount.target] = mount


def _bind(text: str, new_volume: Callable[[], str]) -> VolumeMount:
    parts = text.split(":")
    if len(parts) == 1:
        return VolumeMount(volume=new_volume(), target=checked_target(parts[0]), is_anonymous=True)
    source, target = parts[0], parts[1]
    options = parts[2].split(",") if len(parts) > 2 else []
    if len(parts) > 3 or not source:
        raise InvalidRequestError(f"invalid volume specification: '{text}'")
    for option in options:
        if option not in ("ro", "rw", "nocopy", "z", "Z", ""):
            raise InvalidRequestError(f"invalid mode: {parts[2]}")
    return VolumeMount(
        volume=checked_volume_name(source),
        target=checked_target(target),
        read_only="ro" in options,
        copy_up="nocopy" not in options,
    )


def _mount(body: MountBody, new_volume: Callable[[], str]) -> VolumeMount:
    if body.Type != "volume":
        raise NotImplementedYetError(
            f"labfleet: HostConfig.Mounts of type {body.Type} is not there yet"
        )
    name = checked_volume_name(body.Source) if body.Source else new_volume()
    options = body.VolumeOptions or VolumeOptionsBody()
    driver = options.DriverConfig or DriverConfigBody()
    _check_driver(driver.Name)
    volume_kind(driver.Options or {})
    return VolumeMount(
        volume=name,
        target=checked_target(body.Target),
        read_only=body.ReadOnly,
        copy_up=not options.NoCopy,
        is_anonymous=not body.Source,
        subpath=_subpath(options.Subpath),
        labels=options.Labels or {},
        driver_opts=driver.Options or {},
    )


def _check_driver(name: str) -> None:
    """Raise NotFoundError for a driver that no host has; a container without volumes may name any."""
    if name not in ("", "local"):
        raise NotFoundError(f'error looking up volume plugin {name}: plugin "{name}" not found')


def _subpath(text: str) -> str:
    if text and (text.startswith("/") or ".." in text.split("/") or "\0" in text):
        raise InvalidRequestError(
            f"invalid mount config for type volume: subpath must be a relative path within the "
            f"volume: {text!r}"
        )
    return text
