"""A log over several files, read while it grows and turns, from any position."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labfleet_proto.ids import ContainerId
from labfleet_proto.streams import ReadLogs
from labfleet_runtime_agent.adapters.log_files import LogReader, keep_small, remove_all, rotated
from labfleet_runtime_agent.core.log_output import LogOutput


class Monitor:
    """Writes a log as conmon does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "container.log"
        self._numbers = count()
        self._file = self.path.open("ab")

    def write(self, *texts: str, tag: str = "F", stream: str = "stdout") -> None:
        for text in texts:
            stamp = f"2026-11-24T12:00:00.{next(self._numbers):09d}+00:00"
            self._file.write(f"{stamp} {stream} {tag} {text}\n".encode())
        self._file.flush()

    def tear(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def reopen(self) -> None:
        self._file.close()
        aside = self.path.with_suffix(".tmp")
        self._file = aside.open("wb")
        aside.rename(self.path)

    def close(self) -> None:
        self._file.close()

    def turn(self, files: int = 3) -> None:
        """The agent's part, then the monitor's."""
        keep_small(self.path, self.path.parent / "no-pipe", 1, files)
        self.reopen()
        keep_small(self.path, self.path.parent / "no-pipe", 1 << 30, files)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    made = Monitor(tmp_path)
    yield made
    made.close()


def reader(monitor: Monitor, **wish: object) -> LogReader:
    request = ReadLogs.model_validate({"container": ContainerId("c"), **wish}, strict=False)
    return LogReader(monitor.path, request, LogOutput(request, is_framed=False))


def read_on(log: LogReader) -> list[str]:
    got = b""
    while True:
        data, has_read = log.read()
        got += data
        if not has_read:
            return got.decode().splitlines()


def test_a_log_that_is_not_there_yet_is_read_when_it_comes(monitor: Monitor) -> None:
    monitor.path.unlink()
    log = reader(monitor)
    assert read_on(log) == []
    monitor.reopen()
    monitor.write("a")
    assert read_on(log) == ["a"]


def test_a_line_that_is_not_whole_is_waited_for(monitor: Monitor) -> None:
    log = reader(monitor)
    monitor.tear(b"2026-11-24T12:00:00.1+00:00 stdout F be")
    assert read_on(log) == []
    monitor.tear(b"gun\n")
    assert read_on(log) == ["begun"]


def test_a_follower_goes_over_files_and_misses_nothing(monitor: Monitor) -> None:
    log = reader(monitor)
    monitor.write("1")
    assert read_on(log) == ["1"]
    monitor.write("2")
    keep_small(monitor.path, monitor.path.parent / "no-pipe", 1, 3)
    monitor.write("3")  # still into the old file: the monitor has not heard yet
    assert read_on(log) == ["2", "3"]
    monitor.write("4")
    monitor.reopen()
    monitor.write("5")
    assert read_on(log) == ["4", "5"]


def test_a_follower_finishes_a_file_that_was_deleted(monitor: Monitor) -> None:
    log = reader(monitor)
    monitor.write("1")
    assert read_on(log) == ["1"]
    monitor.write("2")
    for number in (3, 4, 5):
        monitor.turn(files=2)
        monitor.write(str(number))
    assert read_on(log) == ["2", "4", "5"]


def test_only_so_many_files_are_kept(monitor: Monitor) -> None:
    for number in range(5):
        monitor.write(str(number))
        monitor.turn(files=3)
    monitor.write("last")
    assert len(rotated(monitor.path)) == 2
    assert read_on(reader(monitor)) == ["3", "4", "last"]
    remove_all(monitor.path)
    assert list(monitor.path.parent.iterdir()) == []


@pytest.mark.parametrize("tail", [0, 1, 2, 3, 5, 6, 99])
def test_a_tail_may_begin_in_an_older_file(monitor: Monitor, tail: int) -> None:
    lines = [f"line {number}" for number in range(6)]
    for number, line in enumerate(lines):
        monitor.write(line)
        if number in (1, 3):
            monitor.turn()
    log = reader(monitor, tail=tail)
    assert read_on(log) == (lines[-tail:] if tail else [])
    monitor.write("new")
    assert read_on(log) == ["new"]


def test_a_tail_counts_whole_lines_of_the_wanted_streams(monitor: Monitor) -> None:
    monitor.write("no", "one ")
    monitor.write("two-", tag="P")
    monitor.write("parts")
    monitor.write("err", stream="stderr")
    assert read_on(reader(monitor, tail=1, with_stderr=False)) == ["two-parts"]
    monitor.write("begun", tag="P")
    log = reader(monitor, tail=2, with_stderr=False)
    assert read_on(log) == ["two-parts"]
    monitor.write("-ended")
    assert read_on(log) == ["begun-ended"]


def test_a_long_tail_is_found_over_blocks(monitor: Monitor) -> None:
    lines = [f"{number} " + "x" * 3000 for number in range(200)]
    monitor.write(*lines)
    assert read_on(reader(monitor, tail=150)) == lines[50:]


def test_a_position_in_a_deleted_file_goes_on_with_the_oldest(monitor: Monitor) -> None:
    log = reader(monitor)
    monitor.write("1", "2")
    read_on(log)
    at = log.position
    monitor.turn(files=1)
    monitor.write("3")
    assert read_on(reader(monitor, position=at)) == ["3"]


Steps = st.lists(st.sampled_from(["write", "turn", "read", "resume"]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(Steps)
def test_nothing_is_lost_or_comes_again_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    monitor = Monitor(tmp_path_factory.mktemp("log"))
    log = reader(monitor)
    numbers = count()
    seen: list[str] = []

    def resume() -> None:
        nonlocal log
        at = log.position
        log.close()
        log = reader(monitor, position=at)

    actions: dict[str, Callable[[], object]] = {
        "write": lambda: monitor.write(str(next(numbers))),
        "turn": lambda: monitor.turn(files=100),
        "read": lambda: seen.extend(read_on(log)),
        "resume": resume,
    }
    for step in [*steps, "read"]:
        actions[step]()
    log.close()
    monitor.close()
    assert seen == [str(number) for number in range(next(numbers))]


def test_a_line_in_parts_is_shown_once_it_is_whole_with_the_time_of_its_beginning(
    monitor: Monitor,
) -> None:
    monitor.write("be", tag="P")
    monitor.write("other", stream="stderr")
    log = reader(monitor, with_timestamps=True)
    other = "2026-11-24T12:00:00.000000001Z other"
    assert read_on(log) == [other]
    later = reader(monitor, with_timestamps=True, position=log.position)
    monitor.write("gun")
    begun = "2026-11-24T12:00:00.000000000Z begun"
    assert read_on(log) == read_on(later) == [begun]
    log.close()
    later.close()


def test_a_long_line_is_not_waited_for(monitor: Monitor) -> None:
    monitor.write("a" * 10_000, "b" * 10_000, tag="P")
    log = reader(monitor, with_timestamps=True)
    data, _ = log.read()
    assert data == b"2026-11-24T12:00:00.000000000Z " + b"a" * 10_000 + b"b" * 10_000
    monitor.write("end")
    assert log.read()[0] == b"end\n"
    log.close()


def test_a_cut_rotation_is_ended(monitor: Monitor) -> None:
    monitor.write("1")
    pipe = monitor.path.parent / "ctl"
    os.mkfifo(pipe)
    ear = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    keep_small(monitor.path, pipe, 1, 2)
    assert os.read(ear, 100) == b"2 0 0\n"
    keep_small(monitor.path, pipe, 1, 2)  # the agent died before it told
    assert os.read(ear, 100) == b"2 0 0\n"
    os.close(ear)
