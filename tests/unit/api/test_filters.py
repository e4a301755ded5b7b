"""Filters in both of docker's forms."""

import pytest

from labfleet_api.core.filters import any_path, labels_match, parse_filters
from labfleet_proto.errors import InvalidRequestError

KNOWN = frozenset({"name", "label", "dangling"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("{}", {}),
        ('{"name": ["a", "b"]}', {"name": ("a", "b")}),
        ('{"name": {"a": true, "b": false, "c": true}}', {"name": ("a", "c")}),
        ('{"dangling": [true]}', {"dangling": ("True",)}),
        ('{"name": ["a"], "label": {"x=1": true}}', {"name": ("a",), "label": ("x=1",)}),
    ],
)
def test_lists_and_maps_are_read(text: str, found: dict[str, tuple[str, ...]]) -> None:
    assert parse_filters(text, KNOWN) == found


@pytest.mark.parametrize("text", ['{"name": []}', '{"name": {}}', '{"name": {"a": false}}'])
def test_a_filter_without_values_is_none(text: str) -> None:
    assert parse_filters(text, KNOWN) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ("[]", "must be a JSON object"),
        ("3", "must be a JSON object"),
        ('{"nosuch": ["a"]}', "invalid filter 'nosuch'"),
        ('{"name": "a"}', "name: must be a list or a map"),
        ('{"name": 3}', "name: must be a list or a map"),
        ('{"name": null}', "name: must be a list or a map"),
    ],
)
def test_what_is_no_filter_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        parse_filters(text, KNOWN)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ((), True),
        (("a",), True),
        (("a=1",), True),
        (("a=1", "b="), True),
        (("a=2",), False),
        (("a=",), False),
        (("c",), False),
        (("a=1", "c"), False),
        (("a=1=1",), False),
    ],
)
def test_every_label_must_match(wanted: tuple[str, ...], *, matches: bool) -> None:
    assert labels_match(wanted, {"a": "1", "b": ""}) is matches


@pytest.mark.parametrize(
    ("patterns", "matches"),
    [(("busy*",), True), (("x", "*box"), True), (("BUSY*",), False), ((), False)],
)
def test_one_glob_must_match(patterns: tuple[str, ...], *, matches: bool) -> None:
    assert any_path(patterns, "busybox") is matches
