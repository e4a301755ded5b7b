"""What a container changed of its image: the kinds of docker's diff, and when two entries differ."""

import stat
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER

_NOBODY = 65_534
_CAPABILITY_2_BYTES = 20


class Kind(IntEnum):
    """Numbers of docker's `GET /containers/{id}/changes`."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class Facts(Protocol):
    """What `stat` says of an entry."""

    @property
    def st_mode(self) -> int:
        """Type and mode."""

    @property
    def st_uid(self) -> int:
        """Owner."""

    @property
    def st_gid(self) -> int:
        """Group."""

    @property
    def st_rdev(self) -> int:
        """Of a device, its number."""

    @property
    def st_size(self) -> int:
        """Bytes."""

    @property
    def st_mtime_ns(self) -> int:
        """Time of the last change of its content."""


@dataclass(frozen=True)
class Change:
    """One path that differs from the image."""

    path: str
    """Absolute inside the container."""
    kind: Kind


MADE_FOR_RUNNING = frozenset(
    {
        "/.dockerenv",
        "/dev",
        "/dev/console",
        "/dev/mqueue",
        "/dev/pts",
        "/dev/shm",  # noqa: S108 - inside the container
        "/etc",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/mtab",
        "/etc/resolv.conf",
        "/proc",
        "/sys",
    }
)
"""Mount points of every container: docker has them in a layer below the writable one."""


def inside(number: int, base: int) -> int:
    """The id inside the container of an id in its writable layer, which begins at `base`."""
    number -= base
    return number if 0 <= number < IDS_PER_CONTAINER else _NOBODY


def is_different(old: Facts, new: Facts, base: int) -> bool:
    """Whether docker calls an entry modified; of a directory neither size nor time count.

    Args:
        old: The entry in the image's layers, with ids as inside the container.
        new: The entry in the writable layer, with ids from `base` on.
        base: First id of the container.
    """
    if (
        old.st_mode != new.st_mode
        or old.st_uid != inside(new.st_uid, base)
        or old.st_gid != inside(new.st_gid, base)
        or old.st_rdev != new.st_rdev
    ):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    return old.st_mtime_ns != new.st_mtime_ns or old.st_size != new.st_size


def capability_inside(value: bytes) -> bytes:
    """A file's capability as the container sees it: without the host's id of its root.

    The kernel stores one that was set in a user namespace as revision 3 (`vfs_ns_cap_data`), with
    that id at its end.
    """
    if len(value) > _CAPABILITY_2_BYTES and value[3] == 3:
        return value[:3] + b"\x02" + value[4:_CAPABILITY_2_BYTES]
    return value
