"""Docker's framing of two streams on one connection."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame


def unframed(data: bytes) -> list[tuple[int, bytes]]:
    """Split as docker's client does."""
    found = []
    while data:
        stream, length = struct.unpack(">BxxxI", data[:8])
        found.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


@pytest.mark.parametrize(
    ("stream", "header"), [(STDOUT, b"\x01\0\0\0\0\0\0\x02"), (STDERR, b"\x02\0\0\0\0\0\0\x02")]
)
def test_a_frame_begins_with_stream_and_length(stream: int, header: bytes) -> None:
    assert frame(stream, b"hi") == header + b"hi"


@given(st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=300))))
def test_frames_in_a_row_are_told_apart(parts: list[tuple[int, bytes]]) -> None:
    assert unframed(b"".join(frame(*part) for part in parts)) == parts
