"""Lines of the monitor's log files, whole, partial and torn."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_runtime_agent.core.log_lines import LogLine, parse, parse_time

STAMP = "2026-11-23T23:56:11.922588638+00:00"
TIME_NS = int(datetime(2026, 11, 23, 23, 56, 11, tzinfo=UTC).timestamp()) * 10**9 + 922_588_638


def line(rest: str) -> LogLine:
    parsed = parse(f"{STAMP} {rest}".encode())
    assert parsed is not None
    return parsed


def test_a_whole_line_ends_with_a_line_feed() -> None:
    assert line("stdout F hello world").payload(with_timestamp=False) == b"hello world\n"


def test_a_partial_line_has_no_line_feed() -> None:
    assert line("stdout P hello").payload(with_timestamp=False) == b"hello"


def test_an_empty_line_is_a_line() -> None:
    assert line("stdout F ").payload(with_timestamp=False) == b"\n"


def test_spaces_in_the_text_stay() -> None:
    assert line("stdout F  a  b ").text == b" a  b "


@pytest.mark.parametrize(("stream", "is_stderr"), [("stdout", False), ("stderr", True)])
def test_a_line_knows_its_stream(stream: str, *, is_stderr: bool) -> None:
    assert line(f"{stream} F x").is_stderr is is_stderr


def test_a_timestamp_is_printed_as_docker_does() -> None:
    text = line("stdout F x").payload(with_timestamp=True)
    assert text == b"2026-11-23T23:56:11.922588638Z x\n"


def test_bytes_that_are_no_text_pass_through() -> None:
    parsed = parse(STAMP.encode() + b" stdout F \xff\x00")
    assert parsed is not None
    assert parsed.text == b"\xff\x00"


def test_a_local_time_is_printed_in_utc() -> None:
    parsed = parse(b"2026-11-24T01:26:11.5+01:30 stdout F x")
    assert parsed is not None
    assert parsed.stamp == "2026-11-23T23:56:11.500000000Z"


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b"hello",
        STAMP.encode(),
        f"{STAMP} stdout".encode(),
        f"{STAMP} stdout F".encode(),
        f"{STAMP} stdout X text".encode(),
        f"{STAMP} stdin F text".encode(),
        b"yesterday stdout F text",
        b"2026-11-23T23:56:11.92\x00\x00\x00 stdout F text",
        f"2026-11-23T23:56:11.92{STAMP} stdout F text".encode(),
    ],
)
def test_a_torn_line_is_none(torn: bytes) -> None:
    assert parse(torn) is None


@given(st.binary(max_size=80))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    parse(data)


@given(st.text("0123456789-:.TZ+ x\x00", max_size=40))
def test_no_text_breaks_the_clock(text: str) -> None:
    parse_time("2026-11-23T23:56:11" + text)


@pytest.mark.parametrize(
    ("stamp", "time_ns"),
    [
        (STAMP, TIME_NS),
        ("2026-11-23T23:56:11.922588638Z", TIME_NS),
        ("2026-11-24T01:26:11.922588638+01:30", TIME_NS),
        ("2026-11-23T18:56:11.922588638-05:00", TIME_NS),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01", 10**9),
        ("1970-01-01T00:00:00.5Z", 500_000_000),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.0000000019Z", 1),
        ("1969-12-31T23:59:59.25Z", -750_000_000),
    ],
)
def test_a_time_is_read_to_the_nanosecond(stamp: str, time_ns: int) -> None:
    assert parse_time(stamp) == time_ns


@pytest.mark.parametrize(
    "stamp", ["", "now", "2026", "2026-13-01T00:00:00Z", "2026-11-23T23:56:11.x"]
)
def test_no_other_text_is_a_time(stamp: str) -> None:
    assert parse_time(stamp) is None


@given(st.integers(min_value=0, max_value=4_102_444_800 * 10**9))
def test_what_is_printed_reads_as_the_same_time(time_ns: int) -> None:
    seconds, rest = divmod(time_ns, 10**9)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    parsed = parse(f"{whole}.{rest:09d}+00:00 stdout F x".encode())
    assert parsed is not None
    assert (parsed.time_ns, parse_time(parsed.stamp)) == (time_ns, time_ns)
