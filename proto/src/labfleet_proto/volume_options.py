"""What a volume's driver options mean: the rules that api and agent share."""

import re
from collections.abc import Mapping
from typing import Literal

from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_proto.message import Message

DEFAULT_TMPFS_BYTES = 64 << 20
LEAST_BYTES = 4 << 20
MOST_BYTES = 1 << 40
_SIZE = re.compile(r"([0-9]{1,15})([kmgt]?)(i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_KEYS = ("type", "device", "o", "size")
_FILE_SYSTEM = re.compile(r"[a-z][a-z0-9_.]{0,30}")
_WORD = re.compile(r"[A-Za-z0-9_][^,\s\0]{0,500}")
_TMPFS_WORDS = re.compile(
    r"(uid|gid|nr_inodes)=[0-9]{1,9}|mode=[0-7]{3,4}|noexec|nosuid|nodev|noatime"
)


class VolumeKind(Message):
    """How a volume's files are kept."""

    kind: Literal["plain", "tmpfs", "sized", "mounted"] = "plain"
    """A directory; in memory; in a file system of its own with a size; mounted from elsewhere."""
    size_bytes: int = 0
    words: tuple[str, ...] = ()
    """Other mount options."""
    file_system: str = ""
    """Of what is mounted from elsewhere, as `mount -t` takes it."""
    device: str = ""


def volume_kind(options: Mapping[str, str], *, is_operator: bool = False) -> VolumeKind:
    """Read the options of driver `local`; only operators mount what is elsewhere.

    Raises InvalidRequestError, ForbiddenError.
    """
    for key in options:
        if key not in _KEYS:
            raise InvalidRequestError(f'invalid option: "{key}"')
    kind = options.get("type", "")
    words = [word for word in options.get("o", "").split(",") if word]
    if is_operator and kind not in ("", "tmpfs"):
        return _mounted(kind, options.get("device", ""), words)
    _refuse_elsewhere(kind, words)
    sizes = [word.partition("=")[2] for word in words if word.startswith("size=")]
    sizes += [options["size"]] if options.get("size") else []
    rest = tuple(word for word in words if not word.startswith("size="))
    if kind == "tmpfs":
        for word in rest:
            if _TMPFS_WORDS.fullmatch(word) is None:
                raise InvalidRequestError(f'invalid option: "o={word}"')
        size = _bytes(sizes[-1]) if sizes else DEFAULT_TMPFS_BYTES
        return VolumeKind(kind="tmpfs", size_bytes=size, words=rest)
    if rest or options.get("device"):
        raise InvalidRequestError("missing required option: type")
    if sizes:
        return VolumeKind(kind="sized", size_bytes=_bytes(sizes[-1]))
    return VolumeKind()


def _refuse_elsewhere(kind: str, words: list[str]) -> None:
    if kind in ("none", "bind") or {"bind", "rbind"} & set(words):
        raise ForbiddenError("DriverOpts: host paths cannot be mounted; use a plain volume")
    if kind not in ("", "tmpfs"):
        raise ForbiddenError(
            f"DriverOpts.type: {kind}: devices and shared storage are mounted by operators only"
        )


def _mounted(kind: str, device: str, words: list[str]) -> VolumeKind:
    """What `mount` is told to mount, such as an export of a server or a path of the host."""
    if not device:
        raise InvalidRequestError('missing required option: "device"')
    if _FILE_SYSTEM.fullmatch(kind) is None:
        raise InvalidRequestError(f'invalid option: "type={kind}"')
    for word in words:
        if _WORD.fullmatch(word) is None:
            raise InvalidRequestError(f'invalid option: "o={word}"')
    is_bind = kind == "bind" or bool({"bind", "rbind"} & set(words))
    if is_bind and not device.startswith("/"):
        raise InvalidRequestError(f'invalid option: "device={device}": it is no absolute path')
    more = () if not is_bind or {"bind", "rbind"} & set(words) else ("bind",)
    file_system = "none" if is_bind else kind
    return VolumeKind(kind="mounted", words=(*more, *words), file_system=file_system, device=device)


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text)
    size = int(found[1]) << _UNITS[found[2].lower()] if found else 0
    if not LEAST_BYTES <= size <= MOST_BYTES:
        raise InvalidRequestError(f"invalid size: {text!r}: from 4m to 1t")
    return size
