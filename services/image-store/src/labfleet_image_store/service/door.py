"""Who may come into the registry: owners of tokens, and the fleet's own programs."""

import hmac
from dataclasses import dataclass

from labfleet_chassis.credentials import Credentials, split_authorization
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.images import own_repository, readable_as
from labfleet_proto.tenants import ALL_SCOPES, FLEET_USER, TENANT_SCOPES, Scope, is_visitor_pass


@dataclass(frozen=True)
class Visitor:
    """Whose names a request uses, and what it may do."""

    tenant: TenantId
    scopes: frozenset[Scope]
    is_exact: bool = False
    """Names are the store's own, as agents have them of an `ImagePin`."""

    def may(self, method: str) -> bool:
        """Whether the scopes allow it; whoever runs or makes images must read them, too."""
        if method in ("GET", "HEAD"):
            return bool(self.scopes & {Scope.READ, Scope.RUN, Scope.IMAGES})
        return Scope.IMAGES in self.scopes

    def own(self, name: str) -> str:
        """The repository that a name means when writing."""
        return name if self.is_exact else own_repository(self.tenant, name)

    def readable(self, name: str) -> tuple[str, ...]:
        """The repositories that a name may mean when reading, best first."""
        return (name,) if self.is_exact else readable_as(self.tenant, name)


class Door:
    """Knows whom to let in."""

    def __init__(self, credentials: Credentials, fleet_secret: str) -> None:
        self._credentials = credentials
        self._secret = fleet_secret

    def admit(self, authorization: str) -> Visitor | None:
        """Whose request it is: the password says it, whatever the user; None without a good one.

        With the fleet's own password the user says for whom: a tenant, or `FLEET_USER`; a pass made of it
        is for one tenant and a while.
        """
        user, secret = split_authorization(authorization)
        if self._secret and hmac.compare_digest(secret.encode(), self._secret.encode()):
            tenant = TenantId(OPERATORS if user == FLEET_USER else user)
            if not self._credentials.is_there(tenant):
                return None
            return Visitor(tenant, frozenset(ALL_SCOPES), is_exact=user == FLEET_USER)
        visitor, now_ns = TenantId(user), self._credentials.clock.now_ns()
        if self._secret and is_visitor_pass(secret, self._secret, visitor, now_ns):
            if not self._credentials.is_there(visitor):
                return None
            return Visitor(visitor, frozenset(TENANT_SCOPES))
        found = self._credentials.of_token(secret)
        return Visitor(found.tenant, found.scopes) if found is not None else None
