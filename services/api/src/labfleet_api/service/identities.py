"""Who calls, and whether they may: the wrapper before all routes."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from labfleet_api.adapters.peer import EXTENSION, Peer
from labfleet_api.core.access import UnauthorizedError, check
from labfleet_api.core.problems import status_of
from labfleet_api.service.http import problem
from labfleet_api.service.revocation import Revocation
from labfleet_chassis.caller import acting_for
from labfleet_chassis.credentials import Credentials, split_authorization
from labfleet_proto import tenants
from labfleet_proto.errors import ForbiddenError, LabfleetError
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.tenants import Identity

SCOPES = "labfleet.scopes"
"""Where routes find the caller's scopes in the ASGI scope."""
ACT_FOR = "labfleet-tenant"
"""Header by which an operator acts for a tenant."""
_OPERATOR = Identity(OPERATORS, frozenset(tenants.ALL_SCOPES))
_NOBODY = (
    "authentication required: send a token (header `Authorization: Bearer ...`) "
    "or a client certificate"
)


def caller_of(credentials: Credentials, peer: Peer | None, headers: Headers) -> Identity:
    """Whose request this is: the token says it, else the certificate, else the local socket.

    Raises UnauthorizedError, ForbiddenError (acting for another without leave).
    """
    caller = _bearer(credentials, peer, headers.get("authorization", ""))
    wanted = headers.get(ACT_FOR)
    if wanted is None or wanted == caller.tenant:
        return caller
    if tenants.Scope.ADMIN not in caller.scopes:
        raise ForbiddenError(f"authorization denied: header {ACT_FOR} is for operators")
    if not credentials.is_known(TenantId(wanted)):
        raise ForbiddenError(f"header {ACT_FOR}: there is no tenant {wanted!r}")
    return Identity(TenantId(wanted), caller.scopes, caller.expires_at_ns)


def _bearer(credentials: Credentials, peer: Peer | None, authorization: str) -> Identity:
    if authorization:
        found = credentials.of_token(split_authorization(authorization)[1])
        if found is None:
            raise UnauthorizedError("the token is not known, has expired or was revoked")
        return found
    if peer is not None and peer.fingerprint is not None:
        found = credentials.of_certificate(peer.fingerprint)
        if found is None:
            raise UnauthorizedError(
                "the client certificate is not known, has expired or was revoked"
            )
        return found
    if peer is not None and peer.is_local:
        return _OPERATOR
    raise UnauthorizedError(_NOBODY)


class Identified:
    """Serves each request for its caller's tenant, or refuses it; a pure ASGI wrapper."""

    def __init__(self, app: ASGIApp, credentials: Credentials) -> None:
        self._app = app
        self._credentials = credentials
        self._revocation = Revocation(credentials)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the caller, check the scope, and go on."""
        if scope["type"] != "http":
            return
        peer = scope.get("extensions", {}).get(EXTENSION)
        headers = Headers(scope=scope)
        try:
            caller = caller_of(self._credentials, peer, headers)
            check(caller, scope["method"], scope["path"])
        except LabfleetError as exc:
            await problem(status_of(exc), exc.message)(scope, receive, send)
            return
        is_admin = caller.tenant == OPERATORS and tenants.Scope.ADMIN in caller.scopes
        with acting_for(caller.tenant, is_admin=is_admin):
            known = {**scope, SCOPES: caller.scopes}
            if peer is not None and peer.is_local and "authorization" not in headers:
                await self._app(known, receive, send)
                return
            await self._revocation.serve(
                self._app,
                known,
                receive,
                send,
                caller=caller,
                is_valid=lambda: self._is_still(caller, peer, headers),
            )

    def _is_still(self, caller: Identity, peer: Peer | None, headers: Headers) -> bool:
        """Whether a request would be let in again."""
        try:
            return caller_of(self._credentials, peer, headers) == caller
        except LabfleetError:
            return False
