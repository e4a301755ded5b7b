"""Resource vectors and the one admission rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_proto.resources import Resources, fits, lacking

amounts = st.integers(min_value=-(1 << 40), max_value=1 << 40)
vectors = st.builds(Resources, **dict.fromkeys(Resources.model_fields, amounts))
requests = st.builds(
    Resources,
    **dict.fromkeys(Resources.model_fields, st.integers(min_value=0, max_value=1 << 40)),
)


@given(vectors, vectors)
def test_what_was_taken_can_be_given_back(one: Resources, other: Resources) -> None:
    assert one + other - other == one


@given(requests)
def test_a_request_fits_into_exactly_itself(request: Resources) -> None:
    assert fits(request, request)


@given(requests, vectors)
def test_what_fits_never_takes_more_than_there_is(request: Resources, free: Resources) -> None:
    if fits(request, free):
        left = free - request
        for name, wanted in request:
            assert wanted == 0 or getattr(left, name) >= 0


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("memory_bytes", "memory"),
        ("cpu_millis", "cpu"),
        ("pids", "pids"),
        ("containers", "container slots"),
    ],
)
def test_one_unit_too_many_is_named(field: str, word: str) -> None:
    free = Resources(memory_bytes=5, cpu_millis=5, pids=5, containers=5)
    assert lacking(Resources(**{field: 6}), free) == (word,)


def test_all_that_is_lacking_is_named_in_order() -> None:
    wish = Resources(memory_bytes=1, cpu_millis=1, pids=1, containers=1)
    assert lacking(wish, Resources()) == ("memory", "cpu", "pids", "container slots")


def test_an_overcommitted_host_still_takes_what_needs_nothing_of_it() -> None:
    assert fits(Resources(cpu_millis=1), Resources(memory_bytes=-100, cpu_millis=1))
