import pytest

from labfleet_api.core.access import RULES, check, rule_of
from labfleet_api.core.engine_routes import ENGINE_ROUTES
from labfleet_proto.errors import ForbiddenError
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.tenants import ALL_SCOPES, Identity, Scope

ALICE = TenantId("alice")


def caller(*scopes: Scope, tenant: TenantId = ALICE) -> Identity:
    return Identity(tenant, frozenset(scopes))


def test_every_route_of_the_engine_api_asks_for_a_scope() -> None:
    assert {(method, path) for method, path, _ in RULES} == set(ENGINE_ROUTES)
    assert all(rule.any_of for _, _, rule in RULES)


def test_no_credential_without_scopes_may_ask_anything() -> None:
    for method, path in ENGINE_ROUTES:
        filled = path.replace("{id}", "abc").replace("{name}", "some/name")
        with pytest.raises(ForbiddenError):
            check(caller(), method, filled)


def test_nothing_but_reading_is_allowed_to_the_scope_read() -> None:
    allowed = set()
    for method, path in ENGINE_ROUTES:
        try:
            check(caller(Scope.READ), method, path.replace("{id}", "a").replace("{name}", "a/b"))
        except ForbiddenError:
            continue
        allowed.add((method, path))
    posts = {path for method, path in allowed if method not in ("GET", "HEAD")}
    assert posts == {"/containers/{id}/wait", "/auth"}
    gets = {path for method, path in allowed if method == "GET"}
    assert not gets & {"/containers/{id}/archive", "/containers/{id}/export", "/nodes"}


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/containers/create", Scope.RUN),
        ("POST", "/containers/web/attach", Scope.RUN),
        ("GET", "/containers/web/attach/ws", Scope.RUN),
        ("POST", "/containers/web/exec", Scope.EXEC),
        ("PUT", "/containers/web/archive", Scope.EXEC),
        ("DELETE", "/images/course/tools:v1", Scope.IMAGES),
        ("POST", "/build", Scope.IMAGES),
    ],
)
def test_each_scope_opens_its_own_routes(method: str, path: str, scope: Scope) -> None:
    check(caller(scope), method, path)
    with pytest.raises(ForbiddenError, match=scope):
        check(caller(*(set(ALL_SCOPES) - {scope})), method, path)


def test_a_pull_is_allowed_to_whoever_runs_containers_or_makes_images() -> None:
    check(caller(Scope.RUN), "POST", "/images/create")
    check(caller(Scope.IMAGES), "POST", "/images/create")


def test_hosts_are_for_operators_only() -> None:
    for method, path in (
        ("GET", "/nodes"),
        ("GET", "/nodes/host1"),
        ("POST", "/nodes/host1/update"),
    ):
        with pytest.raises(ForbiddenError, match="operators"):
            check(caller(*ALL_SCOPES), method, path)
        check(caller(*ALL_SCOPES, tenant=OPERATORS), method, path)


def test_a_path_that_does_not_exist_asks_for_no_scope() -> None:
    assert rule_of("GET", "/nonsense") is None
    check(caller(), "GET", "/nonsense")
