"""Rules for names inside hostile archives."""

from labfleet_proto.errors import InvalidRequestError

DEEPEST = 128
LONGEST_PATH = 4096
LONGEST_NAME = 255

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."

_FOR_DEVICES = (
    "dev/",
    "lib/udev/devices/",
    "usr/lib/udev/devices/",
    "etc/udev/devices/",
)
"""Where images have nodes that a container never needs: older distributions keep copies for udev."""


def is_passed_over(name: str, *, is_device: bool) -> bool:
    """Whether a layer's member is left out: a node for a `/dev` that containers get made, or what aufs kept."""
    if is_device and name.startswith(_FOR_DEVICES):
        return True
    return name.startswith(_META) and name != OPAQUE


def clean(name: str) -> str:
    """Return the member's path without leading slash and dots; empty for the root itself.

    Raises:
        InvalidRequestError: `..`, a NUL, or longer or deeper than any file system allows.
    """
    if "\0" in name or len(name.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
        raise InvalidRequestError(f"archive: bad name {name[:80]!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidRequestError(f"archive: {name[:80]!r} leads out of its directory")
    if len(parts) > DEEPEST or any(
        len(part.encode("utf-8", "surrogateescape")) > LONGEST_NAME for part in parts
    ):
        raise InvalidRequestError(f"archive: {name[:80]!r} is too deep or too long")
    return "/".join(parts)
