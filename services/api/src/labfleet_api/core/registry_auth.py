"""`X-Registry-Auth`: what a client knows for the registry that an image's name says."""

import base64
import binascii
import json

from labfleet_proto.upstreams import RegistryLogin

_MOST = 16 << 10


def login_of(header: str) -> RegistryLogin:
    """Read the header. As in docker, one that cannot be read is none: the pull may do without."""
    if not header or len(header) > _MOST:
        return RegistryLogin()
    try:
        padded = header + "=" * (-len(header) % 4)
        document = json.loads(base64.urlsafe_b64decode(padded.replace("+", "-").replace("/", "_")))
    except (binascii.Error, ValueError, RecursionError):
        return RegistryLogin()
    if not isinstance(document, dict):
        return RegistryLogin()
    said = {key.lower(): value for key, value in document.items() if isinstance(value, str)}
    username, password = said.get("username", ""), said.get("password", "")
    if not username and said.get("auth"):
        username, password = _split(said["auth"])
    return RegistryLogin(
        username=username,
        password=password,
        identity_token=said.get("identitytoken", ""),
        registry_token=said.get("registrytoken", ""),
    )


def _split(auth: str) -> tuple[str, str]:
    """User and password of the form in which docker's `config.json` has them."""
    try:
        user, _, password = base64.b64decode(auth).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password
