"""A container's output, restored from its log byte by byte."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_runtime_agent.core.raw_output import RawOutput

WANTED = {1: True, 2: True}


def output(
    skipped: dict[int, int] | None = None, wanted: dict[int, bool] | None = None
) -> RawOutput:
    return RawOutput(
        skipped or {},
        wanted or WANTED,
        lambda kind, data: struct.pack(">BI", kind, len(data)) + data,
    )


def line(tag: str, text: bytes, stream: str = "stdout") -> bytes:
    return f"2026-01-01T00:00:00.000000000+00:00 {stream} {tag} ".encode() + text


def texts(data: bytes) -> dict[int, bytes]:
    found = {1: b"", 2: b""}
    while data:
        kind, size = struct.unpack(">BI", data[:5])
        found[kind] += data[5 : 5 + size]
        data = data[5 + size :]
    return found


def logged(pieces: list[tuple[int, bytes]]) -> list[bytes]:
    """What the monitor writes for what it has read, piece by piece."""
    lines = []
    for kind, data in pieces:
        stream = "stdout" if kind == 1 else "stderr"
        *whole, rest = data.split(b"\n")
        lines += [line("F", each, stream) for each in whole]
        if rest:
            lines.append(line("P", rest, stream))
    return lines


def test_lines_and_parts_of_lines() -> None:
    lines = [line("F", b"one"), line("P", b"tw"), line("F", b"o"), line("P", b"$ "), b"torn"]
    assert texts(output().write(lines))[1] == b"one\ntwo\n$ "


def test_an_end_that_comes_alone_waits_for_more() -> None:
    """The monitor ends a last line itself: nothing was printed then."""
    out = output()
    assert texts(out.write([line("P", b"abc"), line("F", b"")]))[1] == b"abc"
    assert not out.is_even
    assert texts(out.write([line("F", b"next")]))[1] == b"\nnext\n"
    assert out.is_even


def test_what_the_client_has_is_left_out_of_each_stream() -> None:
    out = output({1: 5, 2: 2})
    lines = [line("F", b"abc"), line("F", b"xyz", "stderr"), line("F", b"def")]
    assert texts(out.write(lines)) == {1: b"ef\n", 2: b"z\n"}
    assert out.has_skipped


def test_a_stream_that_is_not_wanted_is_left_out() -> None:
    out = output(wanted={1: False, 2: True})
    assert texts(out.write([line("F", b"a"), line("F", b"b", "stderr")])) == {1: b"", 2: b"b\n"}


@pytest.mark.parametrize("blank", [line("F", b""), line("P", b"")])
def test_a_blank_line_is_one(blank: bytes) -> None:
    expected = b"\n" if b" F " in blank else b""
    assert texts(output().write([blank]))[1] == expected


pieces_of_output = st.lists(
    st.tuples(
        st.sampled_from([1, 2]), st.binary(max_size=8).map(lambda b: b.replace(b"\0", b"\n"))
    ),
    max_size=12,
)


@given(pieces_of_output, st.integers(0, 40), st.integers(0, 40))
def test_all_that_was_printed_but_what_the_client_has(
    pieces: list[tuple[int, bytes]], had_out: int, had_err: int
) -> None:
    printed = {kind: b"".join(data for each, data in pieces if each == kind) for kind in (1, 2)}
    had = {1: min(had_out, len(printed[1])), 2: min(had_err, len(printed[2]))}
    out = output(dict(had))
    lines = [*logged(pieces), line("F", b"end"), line("F", b"end", "stderr")]
    found = texts(b"".join(out.write([each]) for each in lines))
    for kind in (1, 2):
        assert found[kind] == printed[kind][had[kind] :] + b"end\n"
