"""The `platform` of a request, as containerd reads it, and what an image was built for."""

import re
from collections.abc import Mapping

from pydantic import JsonValue

from labfleet_proto.errors import InvalidRequestError, NotFoundError

_PART = re.compile(r"[A-Za-z0-9_.-]+")
_SAME = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
_SAME_SYSTEM = {"macos": "darwin"}
_ARCHITECTURES = frozenset("386 amd64 arm arm64 loong64 mips64le ppc64le riscv64 s390x".split())
_SYSTEMS = frozenset("aix android darwin freebsd linux netbsd openbsd solaris windows".split())


def check_form(text: str) -> tuple[str, str]:
    """System and architecture of `linux/arm64`, `linux` or `arm64`; what is not said is empty.

    The empty text means any. Of two parts any is taken, as containerd does.
    Raises InvalidRequestError for what is no platform.
    """
    if not text:
        return "", ""
    parts = text.split("/")
    for part in parts[:3]:
        if _PART.fullmatch(part) is None:
            raise InvalidRequestError(f'"{part}" is an invalid component of "{text}"')
    if len(parts) > 3:
        raise InvalidRequestError(f'"{text}": cannot parse platform specifier: invalid argument')
    first = parts[0].lower()
    if len(parts) > 1:
        second = parts[1].lower()
        return _SAME_SYSTEM.get(first, first), _SAME.get(second, second)
    system, machine = _SAME_SYSTEM.get(first, first), _SAME.get(first, first)
    if system in _SYSTEMS:
        return system, ""
    if machine in _ARCHITECTURES:
        return "linux", machine
    raise InvalidRequestError(
        f'"{text}": unknown operating system or architecture: invalid argument'
    )


def platform_of_new(text: str) -> str:
    """The platform of an image that is imported; empty for the hosts'. Raises InvalidRequestError."""
    if not text:
        return ""
    system, machine = check_form(text)
    if system != "linux":
        raise InvalidRequestError("operating system is not supported")
    return f"{system}/{machine}" if machine else system


def check_platform(text: str, image: str, config: Mapping[str, JsonValue]) -> None:
    """Check that an image is for a platform.

    Raises InvalidRequestError for what is no platform, NotFoundError for another one than the image's.
    """
    if not text:
        return
    system, machine = check_form(text)
    has = (str(config.get("os") or "linux"), str(config.get("architecture") or "amd64"))
    if system != has[0] or (machine and machine != has[1]):
        raise NotFoundError(
            f"image with reference {image} was found but does not provide the specified platform "
            f"({text})"
        )
