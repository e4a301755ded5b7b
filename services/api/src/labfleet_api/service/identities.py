"""Who calls: tokens, client certificates and the local socket, looked up in mirrors."""

import base64
import binascii
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from labfleet_api.adapters.peer import EXTENSION, Peer
from labfleet_api.core.access import UnauthorizedError, check
from labfleet_api.core.problems import status_of
from labfleet_api.service.http import problem
from labfleet_chassis.caller import acting_for
from labfleet_chassis.clock import Clock
from labfleet_chassis.service import Chassis
from labfleet_chassis.store import Mirror
from labfleet_proto import buckets, tenants
from labfleet_proto.errors import ForbiddenError, LabfleetError
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.tenants import CertificateRecord, Identity, TenantRecord, TokenRecord

ACT_FOR = "labfleet-tenant"
"""Header by which an operator acts for a tenant."""
_OPERATOR = Identity(OPERATORS, frozenset(tenants.ALL_SCOPES))
_NOBODY = (
    "authentication required: send a token (header `Authorization: Bearer ...`) "
    "or a client certificate"
)


@dataclass(frozen=True)
class Identities:
    """Credentials as the fleet's memory has them; what is revoked there is refused at once."""

    tenants: Mirror[TenantRecord]
    tokens: Mirror[TokenRecord]
    certificates: Mirror[CertificateRecord]
    clock: Clock

    @classmethod
    async def open(cls, chassis: Chassis) -> "Identities":
        """Mirror the buckets of credentials."""
        return cls(
            await chassis.mirror(buckets.TENANTS),
            await chassis.mirror(buckets.TOKENS),
            await chassis.mirror(buckets.CERTIFICATES),
            chassis.clock,
        )

    def of_request(self, peer: Peer | None, headers: Headers) -> Identity:
        """Whose request this is: the token says it, else the certificate, else the local socket.

        Raises UnauthorizedError, ForbiddenError (acting for another without leave).
        """
        caller = self._caller(peer, headers.get("authorization", ""))
        wanted = headers.get(ACT_FOR)
        if wanted is None or wanted == caller.tenant:
            return caller
        if tenants.Scope.ADMIN not in caller.scopes:
            raise ForbiddenError(f"authorization denied: header {ACT_FOR} is for operators")
        if not self._is_there(TenantId(wanted)):
            raise ForbiddenError(f"header {ACT_FOR}: there is no tenant {wanted!r}")
        return Identity(TenantId(wanted), caller.scopes)

    def of_token(self, text: str) -> Identity | None:
        """Whose token it is; None if it is not good."""
        parts = tenants.split_token(text)
        record = self.tokens.get(parts[0]) if parts else None
        if parts is None or record is None:
            return None
        if not tenants.is_genuine(record, parts[1], self.clock.now_ns()):
            return None
        return self._identity(record)

    def _caller(self, peer: Peer | None, authorization: str) -> Identity:
        if authorization:
            found = self.of_token(_token_in(authorization))
            if found is None:
                raise UnauthorizedError("the token is not known, has expired or was revoked")
            return found
        if peer is not None and peer.fingerprint is not None:
            return self._of_certificate(peer.fingerprint)
        if peer is not None and peer.is_local:
            return _OPERATOR
        raise UnauthorizedError(_NOBODY)

    def _of_certificate(self, fingerprint: str) -> Identity:
        record = self.certificates.get(fingerprint)
        found = None
        if record is not None and not tenants.is_over(record, self.clock.now_ns()):
            found = self._identity(record)
        if found is None:
            raise UnauthorizedError("the client certificate has expired or was revoked")
        return found

    def _identity(self, record: TokenRecord | CertificateRecord) -> Identity | None:
        if not self._is_there(record.tenant):
            return None
        return Identity(record.tenant, frozenset(record.scopes))

    def _is_there(self, tenant: TenantId) -> bool:
        known = self.tenants.get(tenant)
        return tenant == OPERATORS or (known is not None and not known.is_leaving)


def _token_in(authorization: str) -> str:
    """The token of a Bearer or, for clients that know nothing else, Basic header."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


class Identified:
    """Serves each request for its caller's tenant, or refuses it; a pure ASGI wrapper."""

    def __init__(self, app: ASGIApp, identities: Identities) -> None:
        self._app = app
        self._identities = identities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the caller, check the scope, and go on."""
        if scope["type"] != "http":
            return
        peer = scope.get("extensions", {}).get(EXTENSION)
        try:
            caller = self._identities.of_request(peer, Headers(scope=scope))
            check(caller, scope["method"], scope["path"])
        except LabfleetError as exc:
            await problem(status_of(exc), exc.message)(scope, receive, send)
            return
        with acting_for(caller.tenant):
            await self._app(scope, receive, send)
