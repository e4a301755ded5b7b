"""What a container runs: the request's words merged with the image's."""

import posixpath
import re
from collections.abc import Iterable, Sequence

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.image_defaults import ImageDefaults
from labfleet_proto.errors import InvalidRequestError

_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_MOST_TEXT = 128 << 10
"""Longest environment entry or argument: the kernel's MAX_ARG_STRLEN."""
_LARGEST_TERMINAL = 65_535


def _words(value: list[str] | str | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def command(body: CreateBody, image: ImageDefaults) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Docker's merge: an entrypoint takes the image's command away too; `[""]` means none."""
    given, command = _words(body.Entrypoint), _words(body.Cmd)
    entrypoint = () if given == ("",) else given
    if not given:
        command = command or image.command
        entrypoint = image.entrypoint if body.Entrypoint is None else ()
    if not entrypoint + command:
        raise InvalidRequestError("no command specified")
    _check_texts("Cmd", entrypoint + command)
    return entrypoint, command


def _check_texts(name: str, texts: Iterable[str]) -> None:
    for text in texts:
        if "\0" in text:
            raise InvalidRequestError(f"{name}: a NUL byte is not allowed")
        if len(text.encode()) > _MOST_TEXT:
            raise InvalidRequestError(f"{name}: an entry is longer than {_MOST_TEXT} bytes")


def environment(base: Iterable[str], added: Sequence[str]) -> tuple[str, ...]:
    """Later entries replace earlier ones of the same name; a name alone stays, and removes it at the start."""
    _check_texts("Env", added)
    merged: dict[str, str] = {}
    for entry in (*base, *added):
        name = entry.partition("=")[0]
        if not name:
            raise InvalidRequestError(f"invalid environment variable: {entry}")
        merged[name] = entry
    return tuple(merged.values())


def working_dir(path: str) -> str:
    """In its plain form. Raises InvalidRequestError unless it is absolute."""
    if not path.startswith("/"):
        raise InvalidRequestError(
            f"the working directory '{path}' is invalid, it needs to be an absolute path"
        )
    return "/" + posixpath.normpath(path).lstrip("/")


def terminal_size(asked: Sequence[int] | None) -> tuple[int, int]:
    """Height and width in characters as the kernel counts them, 16 bits; 0 where nothing sensible was asked."""
    if asked is None or len(asked) != 2:
        return 0, 0
    height, width = (min(max(each, 0), _LARGEST_TERMINAL) for each in asked)
    return height, width


def hostname(text: str) -> str:
    """Check a host name; an empty one is passed on. Raises InvalidRequestError."""
    if text and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?", text) is None:
        raise InvalidRequestError(f"invalid hostname format: {text}")
    return text


def domainname(text: str) -> str:
    """Check a domain; an empty one is passed on. Raises InvalidRequestError."""
    if text and _DOMAIN.fullmatch(text) is None:
        raise InvalidRequestError(f"invalid domainname format: {text!r}")
    return text
