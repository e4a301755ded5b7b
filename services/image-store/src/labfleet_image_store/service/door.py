"""Who may come into the registry: owners of tokens, and the fleet's own programs."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace

from labfleet_chassis.credentials import Credentials, split_authorization
from labfleet_image_store.core import bearer, references
from labfleet_image_store.core.bearer import Claims, Source, Use
from labfleet_image_store.core.registry_scopes import CATALOG, REPOSITORY, Access
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.images import own_repository, readable_as
from labfleet_proto.registry_access import Action, RepositoryGrant, granted
from labfleet_proto.tenants import (
    ALL_SCOPES,
    FLEET_USER,
    TENANT_SCOPES,
    Identity,
    Scope,
    is_visitor_pass,
    pass_expiry_ns,
)

_NS_PER_S = 1_000_000_000
_READERS = frozenset({Scope.READ, Scope.RUN, Scope.IMAGES})
"""Whoever runs or makes images must read them, too."""

IsShared = Callable[[str], bool]


@dataclass(frozen=True)
class Visitor:
    """Whose names a request uses, and what it may do."""

    tenant: TenantId
    scopes: frozenset[Scope]
    source: Source
    subject: str
    is_shared: IsShared
    is_exact: bool = False
    """Names are the store's own, as agents have them of an `ImagePin`."""
    grants: tuple[RepositoryGrant, ...] = ()
    """Of a robot: all that it may do."""
    access: tuple[Access, ...] | None = None
    """Of a bearer token: it is for no more than this. None: for all that the credential may do."""
    expires_at_ns: int = 0
    """When the credential ends; 0 means never."""

    def has(self, need: Access) -> bool:
        """Whether the credential, by itself or behind a bearer token, may do it."""
        if need == CATALOG:
            is_reader = any(Action.PULL in grant.actions for grant in self.grants)
            return is_reader or bool(self.scopes & _READERS)
        return need.kind == REPOSITORY and all(
            self.may(need.name, Action(action)) for action in need.actions
        )

    def may(self, name: str, action: Action) -> bool:
        """Whether the credential may do something with a repository of the client's names."""
        if granted(self.grants, references.canonical(name), action):
            return True
        return bool(
            self.scopes & _READERS if action is Action.PULL else Scope.IMAGES in self.scopes
        )

    def covers(self, need: Access) -> bool:
        """Whether the bearer token, if it is one, was made for it."""
        return self.access is None or any(each.covers(need) for each in self.access)

    def part_of(self, wish: Access) -> Access:
        """What of a wish the credential may have."""
        if wish == CATALOG:
            return wish if self.has(wish) else replace(wish, actions=frozenset())
        allowed = {each for each in wish.actions if self.may(wish.name, Action(each))}
        return replace(wish, actions=frozenset(allowed))

    @property
    def may_fetch(self) -> bool:
        """Whether what it may pull is fetched from upstreams for it."""
        return bool(self.grants) or bool(self.scopes & {Scope.RUN, Scope.IMAGES})

    def own(self, name: str) -> str:
        """The repository that a name means when writing."""
        return name if self.is_exact else own_repository(self.tenant, name)

    def readable(self, name: str) -> tuple[str, ...]:
        """The repositories that a name may mean when reading, best first."""
        return (name,) if self.is_exact else readable_as(self.tenant, name, self.is_shared)


class Door:
    """Knows whom to let in."""

    def __init__(self, credentials: Credentials, fleet_secret: str, is_shared: IsShared) -> None:
        self._credentials = credentials
        self._secret = fleet_secret
        self._is_shared = is_shared
        self.key = bearer.signing_key(fleet_secret)
        self.clock = credentials.clock

    def admit(self, authorization: str) -> Visitor | None:
        """Whose request it is: a bearer token, or a password, whatever the user; None without a good one."""
        user, secret = split_authorization(authorization)
        if not bearer.is_bearer(secret):
            return self.owner(user, secret)
        if user or not self._secret:  # a bearer token is no password
            return None
        now_s = self.clock.now_ns() / _NS_PER_S
        claims = bearer.read(secret, self.key, Use.ACCESS, now_s)
        found = self.behind(claims) if claims is not None else None
        return replace(found, access=claims.access) if found is not None and claims else None

    def owner(self, user: str, secret: str) -> Visitor | None:
        """Whose password it is; None if it is none.

        With the fleet's own password the user says for whom: a tenant, or `FLEET_USER`; a pass made of it
        is for one tenant and a while.
        """
        if self._secret and hmac.compare_digest(secret.encode(), self._secret.encode()):
            return self._of_fleet(user)
        visitor, now_ns = TenantId(user), self.clock.now_ns()
        if self._secret and is_visitor_pass(secret, self._secret, visitor, now_ns):
            found = self._of_pass(visitor)
            return replace(found, expires_at_ns=pass_expiry_ns(secret)) if found else None
        return self._of_token(self._credentials.of_token(secret))

    def behind(self, claims: Claims) -> Visitor | None:
        """Whose credential a token was made of; None if that is not good any more."""
        match claims.source:
            case Source.FLEET:
                return self._of_fleet(claims.subject)
            case Source.PASS:
                return self._of_pass(TenantId(claims.subject))
            case Source.TOKEN:
                return self._of_token(self._credentials.of_token_id(claims.subject))

    def _of_fleet(self, user: str) -> Visitor | None:
        tenant = TenantId(OPERATORS if user == FLEET_USER else user)
        if not self._credentials.is_there(tenant):
            return None
        return Visitor(
            tenant,
            frozenset(ALL_SCOPES),
            Source.FLEET,
            user,
            self._is_shared,
            is_exact=user == FLEET_USER,
        )

    def _of_pass(self, tenant: TenantId) -> Visitor | None:
        if not self._credentials.is_there(tenant):
            return None
        return Visitor(tenant, frozenset(TENANT_SCOPES), Source.PASS, tenant, self._is_shared)

    def _of_token(self, found: Identity | None) -> Visitor | None:
        if found is None:
            return None
        return Visitor(
            found.tenant,
            found.scopes,
            Source.TOKEN,
            found.token,
            self._is_shared,
            grants=found.repositories,
            expires_at_ns=found.expires_at_ns,
        )
