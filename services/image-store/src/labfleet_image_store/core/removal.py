"""What `docker rmi` takes away, after moby's `daemon/images/image_delete.go`."""

from collections.abc import Sequence
from dataclasses import dataclass

from labfleet_proto.errors import ConflictError


@dataclass(frozen=True)
class Name:
    """A reference to an image: by tag, or by digest if `tag` is empty."""

    repository: str
    tag: str
    digest: str

    @property
    def familiar(self) -> str:
        """As docker prints it."""
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"


@dataclass(frozen=True)
class Users:
    """Short ids of containers that use the image; empty for none."""

    running: str = ""
    stopped: str = ""


@dataclass(frozen=True)
class Removal:
    """What goes: names, and then the image itself unless `is_kept`."""

    untagged: tuple[Name, ...]
    is_kept: bool
    is_dangling: bool = False
    """The image loses its last name, but a container holds it."""


def by_reference(
    wanted: Name, names: Sequence[Name], users: Users, *, force: bool, short: str
) -> Removal:
    """Remove a name; with the last one the image goes, too. Raises ConflictError.

    `short` is the image's short id, for messages.
    """
    user = users.running or users.stopped
    if user and not force and is_single(names):
        raise ConflictError(
            f'conflict: unable to remove repository reference "{wanted.familiar}" (must force) - '
            f"container {user} is using its referenced image {short}"
        )
    gone = [wanted]
    left = [name for name in names if name != wanted]
    if wanted.tag:
        same = [name for name in left if name.repository == wanted.repository]
        if not any(name.tag for name in same):
            gone += same
            left = [name for name in left if name not in same]
    if left:
        return Removal(tuple(gone), is_kept=True)
    is_held = bool(users.running or (users.stopped and not force))
    return Removal(tuple(gone), is_kept=is_held, is_dangling=is_held)


def by_id(names: Sequence[Name], users: Users, *, force: bool, short: str) -> Removal:
    """Remove an image with all its names. Raises ConflictError."""
    if users.running:
        raise _conflict(
            short, f"image is being used by running container {users.running}", forced="cannot"
        )
    if not force and names and not is_single(names):
        raise _conflict(short, "image is referenced in multiple repositories")
    if not force and users.stopped:
        raise _conflict(short, f"image is being used by stopped container {users.stopped}")
    return Removal(tuple(names), is_kept=False)


def _conflict(short: str, why: str, forced: str = "must") -> ConflictError:
    return ConflictError(f"conflict: unable to delete {short} ({forced} be forced) - {why}")


def is_single(names: Sequence[Name]) -> bool:
    """Whether there is at most one tag, and all names are of one repository."""
    tags = [name for name in names if name.tag]
    return bool(names) and len(tags) <= 1 and len({name.repository for name in names}) == 1
