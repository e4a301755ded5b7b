"""Byte streams of images: into and out of the image store, and builds.

Both directions carry frames (`labfleet_chassis.frames`), so that a stream that was cut is never taken
for one that ended.
"""

from typing import Literal

from pydantic import JsonValue

from labfleet_proto.ids import Digest, HostId
from labfleet_proto.images import ImagePin
from labfleet_proto.message import Message
from labfleet_proto.upstreams import RegistryLogin

IMAGE_STORE = HostId("image-store")
"""What tickets for the image store's data port name as their host."""


class SaveImages(Message):
    """Read images as one tar: docker's `manifest.json` beside an OCI layout."""

    op: Literal["image_save"] = "image_save"
    names: tuple[str, ...]
    """A name without a tag means all tags of its repository, as in docker."""


class LoadImages(Message):
    """Store the images of a tar, compressed or not; the answer is docker's JSON lines."""

    op: Literal["image_load"] = "image_load"
    is_quiet: bool = False


class PullImage(Message):
    """Make an image be there, from an upstream if need be; the answer is docker's JSON lines.

    Doing it again finds it there.
    """

    op: Literal["image_pull"] = "image_pull"
    name: str
    """As the user wrote it, maybe with a tag or a digest."""
    tag: str = ""
    """A tag or a digest; if the name has none either, all tags are meant."""
    platform: str = ""
    """Such as `linux/arm64`; empty for the fleet's own."""
    login: RegistryLogin = RegistryLogin()


class AddImage(Message):
    """Store an image of one more layer, whose tar is sent; the answer's detail is a `NewImage` line.

    It serves `docker import` (no parent) and `docker commit`.
    """

    op: Literal["image_add"] = "image_add"
    parent: ImagePin | None = None
    config: dict[str, JsonValue]
    """The `config` object of the image."""
    target: str = ""
    """Name to give it; empty for none."""
    author: str = ""
    comment: str = ""
    created_by: str = ""
    container: str = ""
    container_config: dict[str, JsonValue] | None = None
    platform: str = ""


class NewImage(Message):
    """Last line of the answer to `AddImage`."""

    image_id: Digest
    name: str = ""
    """Familiar name, empty if it has none."""
