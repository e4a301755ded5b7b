import pytest

from labfleet_proto import tenants
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.tenants import Scope, TokenRecord

SECRET = "0123456789ab" * 4
RECORD = TokenRecord(
    id="a" * 12,
    tenant=TenantId("alice"),
    secret_sha256=tenants.secret_hash(SECRET),
    scopes=tenants.TENANT_SCOPES,
    created_at_ns=1,
    expires_at_ns=100,
)


def test_a_token_is_split_into_what_was_put_together() -> None:
    assert tenants.split_token(tenants.token_text(RECORD.id, SECRET)) == (RECORD.id, SECRET)


@pytest.mark.parametrize("text", ["", "lft_", "lft_x_y", f"lft_{'a' * 12}_{SECRET}x", "Bearer"])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert tenants.split_token(text) is None


def test_the_record_does_not_hold_the_secret() -> None:
    assert SECRET not in RECORD.model_dump_json()


def test_a_token_is_good_with_its_secret_until_it_expires() -> None:
    assert tenants.is_genuine(RECORD, SECRET, 99)
    assert not tenants.is_genuine(RECORD, SECRET, 100)
    assert not tenants.is_genuine(RECORD, SECRET[::-1], 99)


def test_a_token_without_expiry_stays_good() -> None:
    assert tenants.is_genuine(RECORD.model_copy(update={"expires_at_ns": 0}), SECRET, 1 << 62)


def test_a_pass_is_for_one_tenant_and_a_while() -> None:
    ann, bob = TenantId("ann"), TenantId("bob")
    made = tenants.visitor_pass("secret", ann, 100)
    assert "secret" not in made
    assert tenants.is_visitor_pass(made, "secret", ann, 99)
    assert not tenants.is_visitor_pass(made, "secret", ann, 100)
    assert not tenants.is_visitor_pass(made, "secret", bob, 99)
    assert not tenants.is_visitor_pass(made, "other", ann, 99)
    assert not tenants.is_visitor_pass(made.replace("_100_", "_200_"), "secret", ann, 150)
    for text in ("", "lfv", "lfv__", "lfv_x_y", "secret"):
        assert not tenants.is_visitor_pass(text, "secret", ann, 0)


@pytest.mark.parametrize("name", ["", "-a", "Alice", "a.b", "a_b", "a" * 40, "a/b", OPERATORS])
def test_names_that_are_none_or_taken_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        tenants.checked_tenant(name)


def test_a_tenant_cannot_be_given_the_scope_of_operators() -> None:
    with pytest.raises(InvalidRequestError, match="admin"):
        tenants.checked_scopes(TenantId("alice"), ("read", "admin"))
    assert Scope.ADMIN in tenants.checked_scopes(OPERATORS, ("admin",))
    assert tenants.checked_scopes(TenantId("alice"), ()) == tenants.TENANT_SCOPES
