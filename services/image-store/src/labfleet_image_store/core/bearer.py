"""Bearer tokens of the registry: signed, opaque to clients, and only as good as the credential behind them.

A token names the credential that it was made of and what it is for; whoever checks it looks the credential up
again. So a credential that is revoked takes its tokens along.
"""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from enum import StrEnum

from labfleet_image_store.core.registry_scopes import Access

_PREFIX = "lfb"
_LONGEST = 32 << 10


class Use(StrEnum):
    """What a token is sent to."""

    ACCESS = "access"
    """The registry."""
    REFRESH = "refresh"
    """The token server, instead of a password (OAuth 2)."""


class Source(StrEnum):
    """What kind of credential a token was made of."""

    TOKEN = "token"  # noqa: S105 - a kind, no secret
    FLEET = "fleet"
    PASS = "pass"  # noqa: S105 - a kind, no secret


@dataclass(frozen=True)
class Claims:
    """What a token says."""

    use: Use
    source: Source
    subject: str
    """Id of the fleet's token, or the user who came with the fleet's own password."""
    access: tuple[Access, ...]
    issued_at_s: int
    expires_at_s: int


def signing_key(fleet_secret: str) -> bytes:
    """The key of a fleet's registry."""
    return hmac.digest(fleet_secret.encode(), b"labfleet registry bearer", hashlib.sha256)


def signed(claims: Claims, key: bytes) -> str:
    """The token."""
    document = {
        "use": claims.use,
        "src": claims.source,
        "sub": claims.subject,
        "access": [[a.kind, a.name, sorted(a.actions)] for a in claims.access],
        "iat": claims.issued_at_s,
        "exp": claims.expires_at_s,
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    body = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    return f"{_PREFIX}_{body}.{_signature(body, key)}"


def is_bearer(text: str) -> bool:
    """Whether it looks like one of these."""
    return text.startswith(f"{_PREFIX}_")


def read(text: str, key: bytes, use: Use, now_s: float) -> Claims | None:
    """What a token says; None if it is not ours, not for this use, or over."""
    body, _, signature = text.removeprefix(f"{_PREFIX}_").partition(".")
    if not is_bearer(text) or len(text) > _LONGEST:
        return None
    if not hmac.compare_digest(signature.encode(), _signature(body, key).encode()):
        return None
    try:
        document = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        claims = Claims(
            Use(document["use"]),
            Source(document["src"]),
            document["sub"],
            tuple(Access(k, name, frozenset(actions)) for k, name, actions in document["access"]),
            document["iat"],
            document["exp"],
        )
    except (ValueError, KeyError, TypeError, binascii.Error):  # signed by another release
        return None
    return claims if claims.use is use and now_s < claims.expires_at_s else None


def _signature(body: str, key: bytes) -> str:
    return hmac.digest(key, body.encode(), hashlib.sha256).hex()
