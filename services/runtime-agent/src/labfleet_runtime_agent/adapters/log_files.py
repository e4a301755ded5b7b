"""Reading a container's log while its monitor writes it."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from labfleet_proto.runtime import ReadLogs
from labfleet_runtime_agent.core.log_lines import LogLine, parse

_POLL_S = 0.05
_BATCH = 1 << 20


def _wanted(line: LogLine, request: ReadLogs) -> bool:
    if line.time_ns < request.since_ns or (request.until_ns and line.time_ns > request.until_ns):
        return False
    return request.with_stderr if line.is_stderr else request.with_stdout


class _Tail:
    """Reads whole lines of a growing file that may be cut to nothing when it is full."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._inode = 0

    def read(self) -> list[bytes]:
        """Return the lines that were added since the last call."""
        try:
            with self._path.open("rb") as file:
                self._follow_rotation(file.fileno())
                file.seek(self._offset)
                data = file.read(_BATCH)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def _follow_rotation(self, fd: int) -> None:
        there = os.fstat(fd)
        if there.st_ino != self._inode or there.st_size < self._offset:
            self._offset, self._rest, self._inode = 0, b"", there.st_ino


async def read(
    path: Path, request: ReadLogs, is_over: Callable[[], bool]
) -> AsyncGenerator[LogLine, None]:
    """Yield the lines that `request` asks for; with `follow` until `is_over` and all is read.

    Partial lines are yielded as they stand; a tail counts whole lines.
    """
    tail = _Tail(path)
    if request.tail is not None:
        for last in await asyncio.to_thread(_last, tail, request):
            yield last
    while True:
        over = is_over()
        lines = await asyncio.to_thread(tail.read)
        for raw in lines:
            line = parse(raw)
            if line is not None and _wanted(line, request):
                yield line
        if lines:
            continue
        if over or not request.follow:
            return
        await asyncio.sleep(_POLL_S)


def _last(tail: _Tail, request: ReadLogs) -> list[LogLine]:
    """The last `request.tail` wanted lines, each with its parts."""
    kept: deque[list[LogLine]] = deque(maxlen=request.tail)
    current: list[LogLine] = []
    while lines := tail.read():
        for raw in lines:
            line = parse(raw)
            if line is None or not _wanted(line, request):
                continue
            current.append(line)
            if not line.is_partial:
                kept.append(current)
                current = []
    if current:
        kept.append(current)
    return [line for whole in kept for line in whole]
