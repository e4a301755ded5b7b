"""Filters of the prune routes."""

import json

import pytest

from labfleet_api.core.prunes import is_pruned, moment, parse_prune_filters
from labfleet_proto.errors import InvalidRequestError

S = 1_000_000_000
NOW = 1_700_000_000 * S


def wanted(**filters: list[str]) -> dict[str, tuple[str, ...]]:
    return parse_prune_filters(json.dumps({k.replace("not_", "") + ("!" if k.startswith("not_") else ""): v
                                           for k, v in filters.items()}), "all")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "ago_s"), [("10m", 600), ("1h30m", 5400), ("1.5s", 1.5), ("100ms", 0.1), ("0s", 0)]
)
def test_a_duration_counts_back_from_now(text: str, ago_s: float) -> None:
    assert moment(text, NOW) == NOW - int(ago_s * S)


def test_a_time_is_itself() -> None:
    assert moment("1600000000", NOW) == 1_600_000_000 * S
    with pytest.raises(InvalidRequestError, match="until"):
        moment("soon", NOW)


def test_only_what_is_older_goes() -> None:
    assert is_pruned(wanted(until=["10m"]), {}, NOW - 700 * S, NOW)
    assert not is_pruned(wanted(until=["10m"]), {}, NOW - 500 * S, NOW)
    with pytest.raises(InvalidRequestError, match="more than one until"):
        is_pruned(wanted(until=["1m", "2m"]), {}, NOW, NOW)


def test_labels_choose_and_spare() -> None:
    labels = {"keep": "1", "class": "a"}
    assert is_pruned(wanted(label=["class=a"]), labels, 0, NOW)
    assert not is_pruned(wanted(label=["class=b"]), labels, 0, NOW)
    assert not is_pruned(wanted(not_label=["keep"]), labels, 0, NOW)
    assert is_pruned(wanted(not_label=["keep=2"]), labels, 0, NOW)


def test_an_unknown_filter_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="invalid filter 'odd'"):
        parse_prune_filters('{"odd": ["1"]}')
