"""Which scope each route asks for, and what a request without it hears."""

from collections.abc import Iterator
from dataclasses import dataclass

from labfleet_api.core.engine_routes import ENGINE_ROUTES, pattern_of
from labfleet_proto.errors import ForbiddenError, PermanentError
from labfleet_proto.ids import OPERATORS
from labfleet_proto.tenants import Identity, Scope

_EXEC = frozenset(
    {
        "POST /containers/{id}/exec",
        "POST /exec/{id}/start",
        "POST /exec/{id}/resize",
        "HEAD /containers/{id}/archive",
        "GET /containers/{id}/archive",
        "PUT /containers/{id}/archive",
        "GET /containers/{id}/export",
    }
)
_IMAGES = frozenset(
    {
        "POST /build",
        "POST /build/prune",
        "POST /images/{name}/push",
        "POST /images/{name}/tag",
        "DELETE /images/{name}",
        "POST /images/prune",
        "POST /images/load",
        "POST /commit",
        "POST /session",
    }
)
_READ = frozenset({"POST /containers/{id}/wait", "POST /auth"})
_RUN_BY_GET = frozenset({"GET /containers/{id}/attach/ws"})
_EITHER = {"POST /images/create": (Scope.RUN, Scope.IMAGES)}
"""`docker run` pulls; an import (`fromSrc`) is checked by its route."""
_HOSTS = "/nodes"


class UnauthorizedError(PermanentError):
    """Nobody knows who calls. HTTP's 401."""

    code = "unauthorized"


@dataclass(frozen=True)
class Rule:
    """What a route asks for."""

    any_of: tuple[Scope, ...]
    operators_only: bool = False


def _rules() -> Iterator[tuple[str, str, Rule]]:
    for method, path in ENGINE_ROUTES:
        name = f"{method} {path}"
        if path.startswith(_HOSTS):
            yield method, path, Rule((Scope.READ if method == "GET" else Scope.ADMIN,), True)
        elif name in _EITHER:
            yield method, path, Rule(_EITHER[name])
        elif name in _EXEC:
            yield method, path, Rule((Scope.EXEC,))
        elif name in _IMAGES:
            yield method, path, Rule((Scope.IMAGES,))
        elif name in _READ or (method in ("GET", "HEAD") and name not in _RUN_BY_GET):
            yield method, path, Rule((Scope.READ,))
        else:
            yield method, path, Rule((Scope.RUN,))


RULES = tuple(_rules())
_PLAIN = {(method, path): rule for method, path, rule in RULES if "{" not in path}
_BY_PATTERN = [(method, pattern_of(path), rule) for method, path, rule in RULES if "{" in path]


def rule_of(method: str, path: str) -> Rule | None:
    """The rule of a request; None for a path that is no route of the Engine API."""
    plain = _PLAIN.get((method, path))
    if plain is not None:
        return plain
    found = (
        rule
        for known, pattern, rule in _BY_PATTERN
        if known == method and pattern.fullmatch(path) is not None
    )
    return next(found, None)


def check(caller: Identity, method: str, path: str) -> None:
    """Raise ForbiddenError if this caller may not ask this."""
    rule = rule_of(method, path)
    if rule is None:
        return  # a path that does not exist
    if rule.operators_only and caller.tenant != OPERATORS:
        raise ForbiddenError("authorization denied: the hosts of a fleet are its operators' to see")
    if not caller.scopes.intersection(rule.any_of):
        words = " or ".join(rule.any_of)
        raise ForbiddenError(
            f"authorization denied: {method} {path} needs the scope {words}, "
            f"and the credential has {', '.join(sorted(caller.scopes)) or 'none'}"
        )
