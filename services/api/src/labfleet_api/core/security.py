"""`HostConfig.SecurityOpt` and the paths that are hidden or read-only: a tenant may only tighten."""

from collections.abc import Iterable

from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto.errors import ForbiddenError, InvalidRequestError

_BUILTIN = ("builtin", "default")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_OF_OPERATORS = ("seccomp", "apparmor", "label", "systempaths")
_OPEN = ("systempaths", "unconfined")


def no_new_privileges(options: Iterable[str], *, is_operator: bool = False) -> bool:
    """Whether programs may not gain privileges. Raises ForbiddenError, InvalidRequestError."""
    is_set = False
    for option in options:
        name, value = _split(option)
        if name == "no-new-privileges":
            if value not in ("", *_TRUE, *_FALSE):
                raise InvalidRequestError(f'invalid --security-opt 2: "{option}"')
            is_set = value not in _FALSE
        elif (name == "seccomp" and value in _BUILTIN) or (name in _OF_OPERATORS and is_operator):
            continue
        elif name in (*_OF_OPERATORS, "writable-cgroups"):
            raise ForbiddenError(
                f"HostConfig.SecurityOpt: {option[:80]} is not allowed: every container has the "
                "fleet's own profile"
            )
        else:
            raise InvalidRequestError(f'invalid --security-opt 2: "{option}"')
    return is_set


def profile(options: Iterable[str]) -> str:
    """What is asked of seccomp: `unconfined`, a profile as JSON, or nothing. The last one counts."""
    said = [value for name, value in map(_split, options) if name == "seccomp"]
    return said[-1] if said and said[-1] not in _BUILTIN else ""


def is_open(options: Iterable[str]) -> bool:
    """Whether nothing of /proc and /sys is to be hidden; docker's client says it in another way."""
    return _OPEN in map(_split, options)


def _split(option: str) -> tuple[str, str]:
    for sign in ("=", ":"):  # docker took the colon once
        name, found, value = option.partition(sign)
        if found and (sign == ":" or ":" not in name):
            return name, value
    return option, ""


def hidden_paths(host: HostConfigBody) -> tuple[str, ...]:
    """Paths to mask beside the fleet's own. Raises ForbiddenError, InvalidRequestError."""
    return _paths("MaskedPaths", host.MaskedPaths)


def read_only_paths(host: HostConfigBody) -> tuple[str, ...]:
    """Paths to make read-only beside the fleet's own. Raises ForbiddenError, InvalidRequestError."""
    return _paths("ReadonlyPaths", host.ReadonlyPaths)


def _paths(field: str, paths: list[str] | None) -> tuple[str, ...]:
    if paths is None:
        return ()
    if not paths:
        raise ForbiddenError(f"HostConfig.{field}: the fleet's own paths stay, others may be added")
    return absolute(field, paths)


def absolute(field: str, paths: list[str]) -> tuple[str, ...]:
    """Absolute paths, each once. Raises InvalidRequestError."""
    for path in paths:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise InvalidRequestError(f"HostConfig.{field}: {path!r} is no absolute path")
    return tuple(dict.fromkeys(paths))
