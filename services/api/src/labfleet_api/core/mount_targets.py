"""Where in a container something may be mounted."""

from labfleet_proto.errors import InvalidRequestError


def checked_target(path: str) -> str:
    """The path in its plain form. Raises InvalidRequestError in docker's words."""
    if not path.startswith("/"):
        raise InvalidRequestError(f"invalid mount path: '{path}' mount path must be absolute")
    plain = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    is_kernels = (
        plain == "/dev" or plain.startswith(("/proc/", "/sys/")) or plain in ("/proc", "/sys")
    )
    if plain == "/" or ".." in plain.split("/") or is_kernels:
        raise InvalidRequestError(f"invalid specification: destination can't be '{plain}'")
    return plain
