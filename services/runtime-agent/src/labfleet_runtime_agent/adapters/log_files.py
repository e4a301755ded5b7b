"""A container's log: the file that its monitor writes, and older ones beside it.

An older file is called `container.log.<number>`, with a number that grows. The monitor goes on in a new file
when it is told so; until then it writes to the old one under its new name. So once the new file is there, the
old one is complete, and a reader that has read it to its end goes on with the next: no line is lost.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from labfleet_proto.streams import HeldLine, LogPosition, ReadLogs

_BATCH = 1 << 20
_BLOCK = 1 << 16
_REOPEN = b"2 0 0\n"
"""Conmon's control message: go on in a new file."""


def rotated(path: Path) -> list[tuple[int, Path]]:
    """Older files with their numbers, oldest first."""
    found = []
    for each in path.parent.glob(f"{path.name}.*"):
        number = each.name.removeprefix(f"{path.name}.")
        if number.isdigit():
            found.append((int(number), each))
    return sorted(found)


def remove_all(path: Path) -> None:
    """Delete a log; absent is success."""
    for each in (path, *(old for _, old in rotated(path))):
        each.unlink(missing_ok=True)


def keep_small(path: Path, control: Path, file_bytes: int, files: int) -> bool:
    """Begin a new file when this one is large enough, and delete the oldest. Again is harmless.

    A rotation that a crash has cut is ended: the monitor is told again. Returns whether anything was done or is
    awaited; if not, there is nothing to do before the file has grown or gone.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        if rotated(path):
            _tell(control)
        return True
    old = rotated(path)
    excess = old[: max(0, len(old) - (files - 1))]
    for _, each in excess:
        each.unlink(missing_ok=True)
    if size < file_bytes:
        return bool(excess)
    number = max(time.time_ns(), old[-1][0] + 1 if old else 0)
    path.rename(path.with_name(f"{path.name}.{number}"))
    _tell(control)
    return True


def _tell(control: Path) -> None:
    try:
        pipe = os.open(control, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # the monitor is gone: the next one makes a new file
        return
    try:
        os.write(pipe, _REOPEN)
    except BlockingIOError:
        pass  # it has enough messages that it has not read
    finally:
        os.close(pipe)


class LineOutput(Protocol):
    """Makes of lines of the monitor's file what somebody wants."""

    def write(self, lines: Iterable[bytes]) -> bytes:
        """Return what is wanted of these lines."""

    def held(self) -> tuple[HeldLine, ...]:
        """Lines that have begun."""

    def counts(self, line: bytes) -> bool | None:
        """Whether a wanted line is the end of a whole one; None if it is not wanted."""


def end_of(path: Path) -> LogPosition:
    """Behind all that was written until now."""
    numbers = [0, *(number for number, _ in rotated(path))]
    file, since = path, numbers[-1]
    if not path.exists() and len(numbers) > 1:  # the monitor has not begun the new one yet
        file, since = path.with_name(f"{path.name}.{numbers[-1]}"), numbers[-2]
    try:
        about = file.stat()
    except FileNotFoundError:
        return LogPosition(since=since)
    return LogPosition(since=since, inode=about.st_ino, first=_first_of(file), offset=about.st_size)


class LogReader:
    """Reads whole lines of a log, over all its files; may be used in one thread at a time."""

    def __init__(self, path: Path, request: ReadLogs, output: LineOutput) -> None:
        self._path = path
        self._output = output
        self._fd = -1
        self._inode = 0
        self._since = 0
        self._offset = 0
        self._rest = b""
        self._first = ""
        self._start = request.position
        self._tail = request.tail if request.position is None else None

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def position(self) -> LogPosition:
        """Behind the last line that was read."""
        if self._fd < 0 and self._start is not None:
            return self._start.model_copy(update={"held": self._output.held()})
        return LogPosition(
            since=self._since,
            inode=self._inode,
            first=self._first,
            offset=self._offset - len(self._rest),
            held=self._output.held(),
        )

    def read(self) -> tuple[bytes, bool]:
        """Return what is wanted of the next lines, and whether there were any; none when all is read."""
        if self._fd < 0 and not self._begin():
            return b"", False
        while True:
            data = os.pread(self._fd, _BATCH, self._offset)
            if not data:
                successor = self._successor()
                if successor is None:
                    return b"", False
                data = os.pread(self._fd, _BATCH, self._offset)  # written before the new one came
                if not data:
                    self._open(*successor)
                    continue
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            if lines:
                if not self._first:
                    self._first = lines[0][:40].split(b" ")[0].decode("ascii", "replace")
                return self._output.write(lines), True

    # -- which file

    def _newer(self, number: int) -> list[tuple[int, Path, int]]:
        """Files that are newer than a rotated one: what each is newer than, its path, its inode."""
        before, found = 0, []
        for own, path in (*rotated(self._path), (None, self._path)):
            if own is None or own > number:
                with contextlib.suppress(FileNotFoundError):
                    found.append((before, path, path.stat().st_ino))
            before = own or before
        return found

    def _begin(self) -> bool:
        """Open the first file that matters; False while there is none."""
        if self._start is not None:
            return self._resume(self._start)
        files = self._newer(0)
        if self._tail is not None and self._begin_at_tail(files, self._tail):
            return True
        return any(self._open(since, path) for since, path, _ in files)

    def _resume(self, start: LogPosition) -> bool:
        newer = self._newer(start.since)
        for since, path, inode in newer if start.offset else ():
            is_same = inode == start.inode and _first_of(path) == start.first
            if is_same and self._open(since, path):
                self._offset, self._first = start.offset, start.first
                return True
        return any(self._open(since, path) for since, path, _ in newer)  # the old one is deleted

    def _begin_at_tail(self, files: list[tuple[int, Path, int]], count: int) -> bool:
        """Open the file in which the last `count` lines begin, at their beginning."""
        left, is_last = count, True
        for since, path, _ in reversed(files):
            if not self._open(since, path):
                continue
            self._first = _first_of(path)
            for end, line in _backwards(self._fd):
                is_whole = self._output.counts(line)
                if is_whole is None:
                    continue
                if is_whole or is_last:  # the last may have begun only
                    if left == 0:
                        self._offset = end
                        return True
                    left -= 1
                is_last = False
        self.close()
        return False

    def _open(self, since: int, path: Path) -> bool:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.close()
        self._fd, self._since = fd, since
        self._inode = os.fstat(fd).st_ino
        self._offset, self._rest, self._first = 0, b"", ""
        return True

    def _successor(self) -> tuple[int, Path] | None:
        """The file that follows this one, once this one is complete."""
        newer = self._newer(self._since)
        mine = [number for number, each in enumerate(newer) if each[2] == self._inode]
        after = newer[mine[0] + 1 :] if mine else newer  # not there: it is deleted
        return after[0][:2] if after else None


def _first_of(path: Path) -> str:
    """Time of a file's first line; nothing if it is gone or empty."""
    try:
        with path.open("rb") as file:
            return file.readline(40).split(b" ")[0].decode("ascii", "replace")
    except FileNotFoundError:
        return ""


def _backwards(fd: int) -> Iterator[tuple[int, bytes]]:
    """Yield each complete line from the last to the first, with the offset behind it."""
    start = end = os.fstat(fd).st_size
    rest = b""
    is_behind = True
    while start > 0:
        begin = max(0, start - _BLOCK)
        *lines, rest = (os.pread(fd, start - begin, begin) + rest).split(b"\n")[::-1]
        start = begin
        for line in lines:
            if is_behind:  # what stands behind the last line feed is no line yet
                is_behind = False
                end -= len(line)
                continue
            yield end, line
            end -= len(line) + 1
    if rest and not is_behind:
        yield end, rest
