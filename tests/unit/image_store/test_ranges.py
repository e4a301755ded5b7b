"""Ranges of blobs and of chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_image_store.core.ranges import parse_content_range, parse_range


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", None),
        ("bytes=0-0", (0, 0)),
        ("bytes=0-", (0, 9)),
        ("bytes=3-5", (3, 5)),
        ("bytes=3-100", (3, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-100", (0, 9)),
        (" bytes=3-5 ", (3, 5)),
        ("bytes=-", None),
        ("bytes=5-3", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=1²-", None),
    ],
)
def test_a_range_of_ten_bytes(header: str, found: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == found


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)],
)
def test_a_range_outside_is_refused(header: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"{header} of {size} bytes"):
        parse_range(header, size)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 40))
def test_a_range_lies_within_the_bytes(first: int, last: int, size: int) -> None:
    try:
        found = parse_range(f"bytes={first}-{last}", size)
    except ValueError:
        assert first >= size
        return
    if found is not None:
        assert first == found[0] <= found[1] < size


@pytest.mark.parametrize(
    "header", ["3-5", "bytes 3-5", "bytes=3-5", "bytes 3-5/10", "3-5/*", " 3-5 "]
)
def test_a_chunk_says_its_first_and_last_byte(header: str) -> None:
    assert parse_content_range(header) == (3, 5)


@pytest.mark.parametrize("header", ["", "5-3", "3-", "-5", "bytes */10", "a-b", "3-5-7"])
def test_a_malformed_chunk_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="Content-Range"):
        parse_content_range(header)
