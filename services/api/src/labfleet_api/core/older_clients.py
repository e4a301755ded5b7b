"""What a request means to a client that speaks an older version of the API, as dockerd reads it."""

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.host_config import HostConfigBody
from labfleet_proto.errors import InvalidRequestError

_SEVERAL_ENDPOINTS = (1, 44)
_PRIVATE_IPC = (1, 40)
_NAMED_VOLUMES_STAY = (1, 42)
_SIZES_CONSOLES = (1, 42)


def as_asked_then(body: CreateBody, version: tuple[int, int]) -> CreateBody:
    """A create request in today's words. Raises InvalidRequestError for what came later."""
    networks = body.NetworkingConfig.EndpointsConfig if body.NetworkingConfig else None
    if version < _SEVERAL_ENDPOINTS and len(networks or {}) > 1:
        raise InvalidRequestError(
            "Container cannot be created with multiple network endpoints: "
            + ", ".join(f"network:{name}" for name in networks or {})
        )
    host = body.HostConfig
    if host is not None and not sizes_consoles(version):
        host = host.model_copy(update={"ConsoleSize": None})
        body = body.model_copy(update={"HostConfig": host})
    if version < _PRIVATE_IPC and not (host and host.IpcMode):
        changed = (host or HostConfigBody()).model_copy(update={"IpcMode": "shareable"})
        return body.model_copy(update={"HostConfig": changed})
    return body


def sizes_consoles(version: tuple[int, int]) -> bool:
    """Whether a console's size counts from its start; older clients send it again as a resize."""
    return version >= _SIZES_CONSOLES


def prunes_named_volumes(version: tuple[int, int]) -> bool:
    """Whether a prune takes all unused volumes; today's clients say so by a filter."""
    return version < _NAMED_VOLUMES_STAY
