"""Tenants and how a caller proves to be one: tokens, client certificates, scopes.

Only a hash of a token's secret is stored: the secret has 192 random bits, so a plain SHA-256 is
enough, and nothing slow stands in the way of a request.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.message import Message
from labfleet_proto.registry_access import RepositoryGrant

FLEET_USER = "_fleet"
"""User by which the fleet's services name the store's repositories by its own names."""
_VISITOR = "lfv"
TENANT_RULE = "[a-z0-9][a-z0-9-]{0,38}"
_TENANT = re.compile(TENANT_RULE)
_TOKEN = re.compile(r"lft_(?P<id>[0-9a-f]{12})_(?P<secret>[0-9a-f]{48})")


class Scope(StrEnum):
    """What a token or certificate is good for."""

    READ = "read"
    """List, inspect, logs, stats, events, wait."""
    RUN = "run"
    """Containers, networks and volumes: make, start, stop, attach, remove; pull."""
    EXEC = "exec"
    """Go inside: exec, copy files in and out, export."""
    IMAGES = "images"
    """Make, name, push and remove images."""
    ADMIN = "admin"
    """Only of the operators: hosts and their paths, and acting for any tenant."""


TENANT_SCOPES = (Scope.READ, Scope.RUN, Scope.EXEC, Scope.IMAGES)
"""What a tenant's credential is good for unless it is made narrower."""
ALL_SCOPES = (*TENANT_SCOPES, Scope.ADMIN)


class TenantRecord(Message):
    """Value of bucket `tenants`, key `<tenant>`; written by `labfleet tenant`."""

    id: TenantId
    created_at_ns: int
    is_leaving: bool = False
    """Its credentials are refused; what it owns is being removed."""
    most_stored_bytes: int = 0
    """Of the blobs that its repositories refer to, each once; 0 means no quota."""
    most_repositories: int = 0
    """0 means no quota."""


class TokenRecord(Message):
    """Value of bucket `tokens`, key `<token id>`; written by `labfleet token`. Absent means revoked."""

    id: str
    tenant: TenantId
    secret_sha256: str
    """Hex. The secret itself is shown once and stored nowhere."""
    scopes: tuple[Scope, ...]
    created_at_ns: int
    expires_at_ns: int = 0
    """0 means never."""
    note: str = ""
    repositories: tuple[RepositoryGrant, ...] = ()
    """Of a robot, which has no scopes: all that it may do, and only at the registry."""


class CertificateRecord(Message):
    """Value of bucket `certificates`, key `<fingerprint>`; written by `labfleet tenant cert`."""

    fingerprint: str
    """Hex SHA-256 of the certificate's DER form."""
    tenant: TenantId
    scopes: tuple[Scope, ...]
    created_at_ns: int
    expires_at_ns: int


@dataclass(frozen=True)
class Identity:
    """Who calls, and what for."""

    tenant: TenantId
    scopes: frozenset[Scope]
    expires_at_ns: int = 0
    """When the credential ends; 0 means never."""
    repositories: tuple[RepositoryGrant, ...] = ()
    """Of a robot."""
    token: str = ""
    """Id of the token, if it is one."""


def checked_tenant(name: str) -> TenantId:
    """Return the name of a tenant that may be made. Raises InvalidRequestError."""
    if _TENANT.fullmatch(name) is None or name == OPERATORS:
        raise InvalidRequestError(
            f"tenant {name!r}: a name is {TENANT_RULE} and not {OPERATORS}, which is there already"
        )
    return TenantId(name)


def checked_scopes(tenant: TenantId, names: tuple[str, ...]) -> tuple[Scope, ...]:
    """Return the scopes that are meant; none named means all of a tenant. Raises InvalidRequestError."""
    allowed = ALL_SCOPES if tenant == OPERATORS else TENANT_SCOPES
    if not names:
        return allowed
    for name in names:
        if name not in allowed:
            raise InvalidRequestError(
                f"scope {name!r}: those of tenant {tenant} are {', '.join(allowed)}"
            )
    return tuple(scope for scope in allowed if scope in names)


def token_text(token: str, secret: str) -> str:
    """The token as it is shown to its owner."""
    return f"lft_{token}_{secret}"


def split_token(text: str) -> tuple[str, str] | None:
    """Id and secret of a token; None if it cannot be one."""
    found = _TOKEN.fullmatch(text.strip())
    return (found["id"], found["secret"]) if found else None


def secret_hash(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_genuine(record: TokenRecord, secret: str, now_ns: int) -> bool:
    """Whether the secret is the token's and it has not expired."""
    is_same = hmac.compare_digest(record.secret_sha256, secret_hash(secret))
    return is_same and not is_over(record, now_ns)


def is_over(record: TokenRecord | CertificateRecord, now_ns: int) -> bool:
    """Whether a credential has expired."""
    return bool(record.expires_at_ns) and now_ns >= record.expires_at_ns


def visitor_pass(secret: str, tenant: TenantId, expires_at_ns: int) -> str:
    """A password at the image store for one tenant and a while, made of the fleet's own.

    For programs that handle what tenants made, such as a builder: they never hold the fleet's password.
    """
    return f"{_VISITOR}_{expires_at_ns}_{_signed(secret, tenant, expires_at_ns)}"


def is_visitor_pass(text: str, secret: str, tenant: TenantId, now_ns: int) -> bool:
    """Whether the text is a pass for the tenant that has not expired."""
    kind, _, rest = text.partition("_")
    expires, _, signature = rest.partition("_")
    if kind != _VISITOR or not (expires.isascii() and expires.isdigit()) or len(expires) > 20:
        return False
    good = _signed(secret, tenant, int(expires))
    return hmac.compare_digest(signature.encode(), good.encode()) and now_ns < int(expires)


def pass_expiry_ns(text: str) -> int:
    """When a pass that was found good ends."""
    return int(text.split("_")[1])


def _signed(secret: str, tenant: TenantId, expires_at_ns: int) -> str:
    words = f"visitor {tenant} {expires_at_ns}"
    return hmac.digest(secret.encode(), words.encode(), hashlib.sha256).hex()


def fleet_secret(data_key: str) -> str:
    """The fleet's own password at its image store.

    Whoever has it says with the user whom it acts for: a tenant, the operators, or `FLEET_USER`.
    """
    return hmac.digest(data_key.encode(), b"labfleet image store", hashlib.sha256).hex()
