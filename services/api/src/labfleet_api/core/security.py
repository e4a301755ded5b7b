"""`HostConfig.SecurityOpt` and the paths that are hidden or read-only: a tenant may only tighten."""

from collections.abc import Iterable

from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto.errors import ForbiddenError, InvalidRequestError

_BUILTIN = ("builtin", "default")


def no_new_privileges(options: Iterable[str]) -> bool:
    """Whether programs may not gain privileges. Raises ForbiddenError, InvalidRequestError."""
    is_set = False
    for option in options:
        name, value = _split(option)
        if name == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InvalidRequestError(f'invalid --security-opt 2: "{option}"')
            is_set = value != "false"
        elif name == "seccomp" and value in _BUILTIN:
            continue
        elif name in ("seccomp", "apparmor", "label", "systempaths", "writable-cgroups"):
            raise ForbiddenError(
                f"HostConfig.SecurityOpt: {option[:80]} is not allowed: every container has the "
                "fleet's own profile"
            )
        else:
            raise InvalidRequestError(f'invalid --security-opt 2: "{option}"')
    return is_set


def _split(option: str) -> tuple[str, str]:
    for sign in ("=", ":"):  # docker took the colon once
        name, found, value = option.partition(sign)
        if found:
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
    for path in paths:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise InvalidRequestError(f"HostConfig.{field}: {path!r} is no absolute path")
    return tuple(dict.fromkeys(paths))
