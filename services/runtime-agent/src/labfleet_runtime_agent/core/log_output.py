"""Lines of a log as a client wants them. Quick: a second of a busy container has 50,000."""

from collections.abc import Iterable
from dataclasses import dataclass

from labfleet_proto.streams import HeldLine, ReadLogs
from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame
from labfleet_runtime_agent.core.log_lines import in_utc, parse_time

_STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}
_MOST_HELD = 16 << 10
"""Docker, too, cuts longer lines."""


@dataclass
class _Held:
    """A line that has begun."""

    stamp: bytes
    text: bytes = b""
    is_shown: bool = False


class LogOutput:
    """Chooses and writes lines for one request.

    The monitor writes what it has read at once, so that a line may come in parts; as with docker, it is
    shown when it is whole or long, with the time of its beginning.
    """

    def __init__(self, request: ReadLogs, *, is_framed: bool) -> None:
        self._wanted = {STDOUT: request.with_stdout, STDERR: request.with_stderr}
        self._since_ns, self._until_ns = request.since_ns, request.until_ns
        self._has_times = bool(request.since_ns or request.until_ns or request.with_timestamps)
        self._with_stamp = request.with_timestamps
        self._details = b"" if request.details is None else request.details.encode() + b" "
        self._is_framed = is_framed
        self._stamp = b""
        self._time_ns: int | None = None
        self._prefix = b""
        self._held: dict[int, _Held] = {}
        for each in request.position.held if request.position is not None else ():
            held = _Held(each.stamp.encode(), each.text.encode("latin-1"), each.is_shown)
            self._held[STDERR if each.is_stderr else STDOUT] = held

    def held(self) -> tuple[HeldLine, ...]:
        """Lines that have begun, for whoever goes on later."""
        return tuple(
            HeldLine(
                is_stderr=kind == STDERR,
                stamp=each.stamp.decode("ascii", "replace"),
                text=each.text.decode("latin-1"),
                is_shown=each.is_shown,
            )
            for kind, each in self._held.items()
        )

    def write(self, lines: Iterable[bytes]) -> bytes:
        """Return the wanted ones of these lines of the monitor's file, without their line feeds."""
        written: list[bytes] = []
        for line in lines:
            parts = line.split(b" ", 3)
            kind = _STREAMS.get(parts[1]) if len(parts) == 4 else None
            if kind is None or not self._wanted[kind]:
                continue  # not wanted, or torn by a crash
            if parts[2] == b"P":
                self._hold(written, kind, parts[0], parts[3])
            elif parts[2] == b"F":
                held = self._held.pop(kind, None) if self._held else None
                if held is None:
                    self._show(written, kind, parts[0], parts[3] + b"\n")
                else:
                    held.text += parts[3] + b"\n"
                    self._show_held(written, kind, held)
        return b"".join(written)

    def rest(self) -> bytes:
        """Return the lines that have begun, as they are: nothing more will come."""
        written: list[bytes] = []
        for kind, held in self._held.items():
            self._show_held(written, kind, held)
        self._held = {}
        return b"".join(written)

    def _hold(self, written: list[bytes], kind: int, stamp: bytes, text: bytes) -> None:
        held = self._held.setdefault(kind, _Held(stamp))
        held.text += text
        if len(held.text) > _MOST_HELD:
            self._show_held(written, kind, held)
            held.text, held.is_shown = b"", True

    def _show_held(self, written: list[bytes], kind: int, held: _Held) -> None:
        self._show(written, kind, held.stamp, held.text, is_begin=not held.is_shown)

    def _show(
        self, written: list[bytes], kind: int, stamp: bytes, text: bytes, *, is_begin: bool = True
    ) -> None:
        if self._has_times and not self._is_in_time(stamp):
            return
        if is_begin:
            text = self._details + text
            if self._with_stamp:
                text = self._prefix + text
        written.append(frame(kind, text) if self._is_framed else text)

    def counts(self, line: bytes) -> bool | None:
        """Whether a wanted line is the end of a whole one; None if it is not wanted."""
        parts = line.split(b" ", 3)
        kind = _STREAMS.get(parts[1]) if len(parts) == 4 else None
        if kind is None or not self._wanted[kind] or not self._is_in_time(parts[0]):
            return None
        return parts[2] == b"F"

    def _is_in_time(self, stamp: bytes) -> bool:
        if stamp != self._stamp:  # the lines of one write have the same
            self._stamp = stamp
            self._time_ns = parse_time(stamp.decode("ascii", "replace"))
            self._prefix = b"" if self._time_ns is None else f"{in_utc(self._time_ns)} ".encode()
        time_ns = self._time_ns
        return (
            time_ns is not None
            and time_ns >= self._since_ns
            and not (self._until_ns and time_ns > self._until_ns)
        )
