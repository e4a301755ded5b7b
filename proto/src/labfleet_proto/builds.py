"""Builds of images: asked of one host over its data port."""

from typing import Literal

from labfleet_proto.containers import Limits, Ulimit
from labfleet_proto.ids import ContainerId, Digest
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message, Nothing
from labfleet_proto.networks import InterfaceWish

_BUILD = "b01d" * 4


def build_id(digits: str) -> ContainerId:
    """Id of a build: that of a container which nobody recorded; `digits` are 48 hex digits."""
    return ContainerId(_BUILD + digits)


def is_build(container: ContainerId) -> bool:
    """Whether an id is a build's: its host alone says when it is over."""
    return container.startswith(_BUILD)


def build_tag(build: ContainerId) -> str:
    """Tag under which a host pushes what it built."""
    return build[:40]


class BuildImage(Message):
    """Build an image of a context, whose tar is sent; the answer is docker's JSON lines.

    Frames in both directions (`labfleet_chassis.frames`). The build ends when the asker goes away.
    """

    op: Literal["build"] = "build"
    build: ContainerId
    dockerfile: str = "Dockerfile"
    names: tuple[str, ...] = ()
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    target: str = ""
    extra_hosts: tuple[str, ...] = ()
    networks: tuple[InterfaceWish, ...] = ()
    """Empty: neither RUN nor the builder has a network."""
    limits: Limits
    is_cached: bool = True
    is_quiet: bool = False
    is_offline: bool = False
    """RUN has no network; ADD and `remote` have that of `networks`."""
    remote: str = ""
    """Where the context is to be fetched from, instead of being sent."""
    ulimits: tuple[Ulimit, ...] = ()
    """Of the commands of RUN."""


class ShelveBuild(Message):
    """Give the image that a build pushed under its own id the names that it is to have; the id's name goes."""

    build: ContainerId
    names: tuple[str, ...] = ()


class ShelvedBuild(Message):
    """Where the image is now."""

    image_id: Digest
    names: tuple[str, ...]


class PruneBuilds(Message):
    """Drop the tenant's build cache."""


class PrunedBuilds(Message):
    """What was dropped."""

    freed_bytes: int


class BuildCache(Message):
    """What a host keeps of a tenant's builds."""

    size_bytes: int
    is_in_use: bool = False


BUILD_REPOSITORY = "labfleet-build"
"""Where a host pushes what it built, tagged with the build's id, until it is shelved."""
SHELVE_BUILD = JobKind("shelve_build", "image-store", ShelveBuild, ShelvedBuild, timeout_s=30.0)
"""Safe to repeat until it has answered; then NotFoundError."""
DROP_BUILD = JobKind("drop_build", "image-store", ShelveBuild, Nothing)
"""Forget what a build pushed that came to no end; absent is success."""
PRUNE_BUILDS = JobKind("prune_builds", "runtime-agent", PruneBuilds, PrunedBuilds, timeout_s=60.0)
BUILD_CACHE = JobKind("build_cache", "runtime-agent", PruneBuilds, BuildCache, timeout_s=20.0)
