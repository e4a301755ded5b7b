"""Keys of buckets: legal on NATS, and never the same for two different things."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import container_id, network_id

from labfleet_proto.buckets import (
    address_key,
    container_key,
    manifest_key,
    name_key,
    observed_key,
    tag_key,
)
from labfleet_proto.ids import Digest, HostId, TenantId

LEGAL_KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")
"""NATS ADR-8, with the rule that a key neither begins nor ends with a dot."""

# Few characters, so that the examples are alike and a collision would be met.
tenants = st.sampled_from(["a", "b", "a-b", "a3"]).map(TenantId)
names = st.text("aA3_.-", max_size=4).map(lambda rest: f"a{rest}")
tags = st.text("aA3_.-", max_size=4).map(lambda rest: f"a{rest}")
components = st.sampled_from(["a", "3a", "a.3a", "a.b", "a-b", "a_b", "a__b", "a.b.3a"])
domains = st.sampled_from(["", "a:3/", "a.b:3/", "a.b/"])
repositories = st.builds(
    lambda domain, parts: domain + "/".join(parts),
    domains,
    st.lists(components, min_size=1, max_size=2),
)
digests = st.sampled_from("abc").map(lambda digit: Digest("sha256:" + digit * 64))


def is_legal(key: str) -> bool:
    return LEGAL_KEY.fullmatch(key) is not None and not key.startswith(".") and key[-1] != "."


@given(st.tuples(tenants, names), st.tuples(tenants, names))
def test_two_names_never_share_a_key(
    one: tuple[TenantId, str], other: tuple[TenantId, str]
) -> None:
    assert (name_key(*one) == name_key(*other)) == (one == other)


@given(st.tuples(repositories, tags), st.tuples(repositories, tags))
def test_two_tags_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (tag_key(*one) == tag_key(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a.b", "c"), ("a", "b.c")),
        (("a.b", "c"), ("a-b", "c")),
        (("a:5", "c"), ("a.3a5", "c")),
        (("a/b", "c"), ("a.b", "c")),
    ],
)
def test_look_alike_tags_have_their_own_keys(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert tag_key(*one) != tag_key(*other)


@given(st.tuples(repositories, digests), st.tuples(repositories, digests))
def test_two_manifests_never_share_a_key(
    one: tuple[str, Digest], other: tuple[str, Digest]
) -> None:
    assert (manifest_key(*one) == manifest_key(*other)) == (one == other)


@given(tenants, names, repositories, tags)
def test_every_key_is_legal_on_nats(tenant: TenantId, name: str, repository: str, tag: str) -> None:
    assert is_legal(name_key(tenant, name))
    assert is_legal(tag_key(repository, tag))


@given(tenants, names)
def test_a_name_is_one_token_behind_its_tenant(tenant: TenantId, name: str) -> None:
    assert name_key(tenant, name).split(".")[:-1] == [tenant]


def test_keys_of_a_container_begin_with_their_owner() -> None:
    assert container_key(TenantId("ann"), container_id(1)) == f"ann.{container_id(1)}"
    assert observed_key(HostId("h1"), container_id(1)) == f"h1.{container_id(1)}"


def test_an_address_keeps_its_dots() -> None:
    assert address_key(network_id(1), "10.100.0.2") == f"{network_id(1)}.10.100.0.2"
