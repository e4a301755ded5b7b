"""Bearer tokens and their scopes, as values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_image_store.core import bearer, registry_scopes
from labfleet_image_store.core.bearer import Claims, Source, Use
from labfleet_image_store.core.registry_scopes import CATALOG, Access, needed, of_repository
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.registry_access import (
    Action,
    RepositoryGrant,
    checked_actions,
    checked_pattern,
    granted,
    matches,
)

KEY, OTHER = bearer.signing_key("one"), bearer.signing_key("another")
CLAIMS = Claims(
    Use.ACCESS, Source.TOKEN, "0123456789ab", (of_repository("lab/box", Action.PULL),), 100, 400
)


def test_a_token_says_again_what_it_was_made_of() -> None:
    assert bearer.read(bearer.signed(CLAIMS, KEY), KEY, Use.ACCESS, 399.9) == CLAIMS


@pytest.mark.parametrize(
    ("key", "use", "now_s"),
    [(OTHER, Use.ACCESS, 200), (KEY, Use.REFRESH, 200), (KEY, Use.ACCESS, 400)],
)
def test_a_token_of_another_fleet_or_use_or_that_is_over_is_none(
    key: bytes, use: Use, now_s: float
) -> None:
    assert bearer.read(bearer.signed(CLAIMS, KEY), key, use, now_s) is None


@given(at=st.integers(min_value=0), letter=st.sampled_from("aA0_.-é"))
def test_no_changed_letter_goes_unnoticed(at: int, letter: str) -> None:
    text = bearer.signed(CLAIMS, KEY)
    at %= len(text)
    changed = text[:at] + letter + text[at + 1 :]
    found = bearer.read(changed, KEY, Use.ACCESS, 200)
    assert (found == CLAIMS) is (changed == text)


@given(st.text())
def test_any_other_text_is_no_token(text: str) -> None:
    assert bearer.read(text, KEY, Use.ACCESS, 200) is None
    assert bearer.read(f"lfb_{text}", KEY, Use.ACCESS, 200) is None


def test_scopes_are_parsed_as_the_specification_has_them() -> None:
    found = registry_scopes.asked(
        [
            "repository:library/box:pull repository:box:push",
            "repository(plugin):other:pull",
            "repository:host:5000/lab/a:pull,fly",
            "repository:gone:*",
            "registry:catalog:*",
            "nonsense repository:: : ::: repository:x",
        ]
    )
    assert [each.words for each in found if each.name] == [
        "repository:box:pull,push",
        "repository:other:pull",
        "repository:host:5000/lab/a:pull",
        "repository:gone:pull,push,delete",
        "registry:catalog:*",
    ]


@given(st.lists(st.text(), max_size=5))
def test_any_scopes_are_parsed(texts: list[str]) -> None:
    for each in registry_scopes.asked(texts):
        assert each.kind in ("repository", "registry")


def test_too_many_scopes_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        registry_scopes.asked(["repository:a:pull"] * 65)


@pytest.mark.parametrize(
    ("kind", "method", "need"),
    [
        ("base", "GET", None),
        ("catalog", "GET", CATALOG),
        ("tags", "GET", of_repository("a", Action.PULL)),
        ("blob", "HEAD", of_repository("a", Action.PULL)),
        ("blob", "DELETE", of_repository("a", Action.DELETE)),
        ("uploads", "POST", of_repository("a", Action.PUSH)),
        ("upload", "GET", of_repository("a", Action.PUSH)),
        ("upload", "DELETE", of_repository("a", Action.PUSH)),
        ("manifest", "PUT", of_repository("a", Action.PUSH)),
        ("manifest", "DELETE", of_repository("a", Action.DELETE)),
        ("referrers", "GET", of_repository("a", Action.PULL)),
    ],
)
def test_what_a_route_needs(kind: str, method: str, need: Access | None) -> None:
    name = None if kind in ("base", "catalog") else "library/a"
    assert needed(kind, method, name) == need


def test_a_token_covers_what_it_was_made_for_only() -> None:
    both = of_repository("a", Action.PULL, Action.PUSH)
    assert both.covers(of_repository("a", Action.PULL))
    assert not both.covers(of_repository("a", Action.DELETE))
    assert not both.covers(of_repository("b", Action.PULL))
    assert not both.covers(replace(both, kind="registry"))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("lab/*", ("lab/a", "lab/a.b-c"), ("lab", "lab/a/b", "xlab/a", "lab.a")),
        ("lab/**", ("lab/a", "lab/a/b"), ("lab", "labs/a")),
        ("busybox", ("busybox",), ("busybox2", "a/busybox")),
        ("*-ci/box", ("my-ci/box",), ("a/my-ci/box",)),
        ("**", ("a", "a/b/c"), ()),
    ],
)
def test_patterns(pattern: str, yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    assert all(matches(checked_pattern(pattern), name) for name in yes)
    assert not any(matches(pattern, name) for name in no)


@pytest.mark.parametrize("pattern", ["", "/", "a//b", "A", "a b", "_ann/x", "a" * 256, "../a"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequestError):
        checked_pattern(pattern)


def test_a_grant_is_for_its_actions_and_repositories() -> None:
    grants = (
        RepositoryGrant(pattern="lab/*", actions=checked_actions(("push", "pull"))),
        RepositoryGrant(pattern="lab/old", actions=(Action.DELETE,)),
    )
    assert granted(grants, "lab/box", Action.PUSH)
    assert not granted(grants, "lab/box", Action.DELETE)
    assert granted(grants, "lab/old", Action.DELETE)
    assert not granted(grants, "other/box", Action.PULL)
    for wrong in ((), ("fly",)):
        with pytest.raises(InvalidRequestError):
            checked_actions(wrong)
