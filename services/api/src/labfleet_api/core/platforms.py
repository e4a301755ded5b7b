"""The `platform` of a request against what an image was built for."""

import re
from collections.abc import Mapping

from pydantic import JsonValue

from labfleet_proto.errors import InvalidRequestError, NotFoundError

_PLATFORM = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,2}")
_SAME = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
_ARCHITECTURES = frozenset("386 amd64 arm arm64 loong64 mips64le ppc64le riscv64 s390x".split())


def check_form(text: str) -> tuple[str, str]:
    """System and architecture (empty if it does not say) of a platform such as `linux/arm64`.

    The empty text means any. Raises InvalidRequestError for what is no platform.
    """
    if not text:
        return "", ""
    if _PLATFORM.fullmatch(text) is None:
        raise InvalidRequestError(f'"{text}" is an invalid component of "{text}"')
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts = ["linux", parts[0]] if parts[0] != "linux" else ["linux", ""]
    system, architecture = parts[0], _SAME.get(parts[1], parts[1])
    if architecture and architecture not in _ARCHITECTURES:
        raise InvalidRequestError(
            f'"{text}": unknown operating system or architecture: invalid argument'
        )
    return system, architecture


def check_platform(text: str, image: str, config: Mapping[str, JsonValue]) -> None:
    """Check that an image is for a platform.

    Raises InvalidRequestError for what is no platform, NotFoundError for another one than the image's.
    """
    system, architecture = check_form(text)
    if not system:
        return
    has = (str(config.get("os") or "linux"), str(config.get("architecture") or "amd64"))
    if system != has[0] or (architecture and architecture != has[1]):
        raise NotFoundError(
            f"image with reference {image} was found but does not provide the specified platform "
            f"({text})"
        )
