"""Names inside hostile archives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.core.tar_paths import DEEPEST, LONGEST_NAME, LONGEST_PATH, clean


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("./etc/./passwd", "etc/passwd"),
        ("etc//passwd/", "etc/passwd"),
        ("", ""),
        (".", ""),
        ("/", ""),
        ("...", "..."),
        ("a..b/..c", "a..b/..c"),
        (".wh.gone", ".wh.gone"),
        ("caf\udce9", "caf\udce9"),
    ],
    ids=ascii,
)
def test_a_name_is_cleaned(name: str, wanted: str) -> None:
    assert clean(name) == wanted


@pytest.mark.parametrize("name", ["..", "../etc", "a/../b", "/..", "a/..", "./../x"])
def test_a_way_out_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="leads out of its directory"):
        clean(name)


def test_a_nul_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="bad name"):
        clean("a\0b")


def test_a_name_as_long_as_file_systems_allow_passes() -> None:
    assert clean("a" * LONGEST_NAME) == "a" * LONGEST_NAME


@pytest.mark.parametrize(
    "name",
    ["a" * (LONGEST_NAME + 1), "é" * (LONGEST_NAME // 2 + 1), "a/" * (DEEPEST + 1)],
    ids=["long", "long in bytes", "deep"],
)
def test_what_no_file_system_holds_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="too deep or too long"):
        clean(name)


def test_a_path_beyond_the_kernels_limit_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="bad name"):
        clean("./" * (LONGEST_PATH // 2 + 1))


def test_a_refusal_quotes_only_the_beginning_of_a_long_name() -> None:
    with pytest.raises(InvalidRequestError) as raised:
        clean("a" * 4000)
    assert len(raised.value.message) < 200


hostile_names = st.lists(st.sampled_from(["..", ".", "", "a", "é", "...", "\0"])).map("/".join)


@given(hostile_names)
def test_what_passes_stays_below_its_directory(name: str) -> None:
    try:
        parts = clean(name).split("/")
    except InvalidRequestError:
        return
    assert ".." not in parts
    assert "." not in parts
    assert parts == [""] or "" not in parts


@given(hostile_names)
def test_a_clean_name_is_not_changed_again(name: str) -> None:
    try:
        cleaned = clean(name)
    except InvalidRequestError:
        return
    assert clean(cleaned) == cleaned
