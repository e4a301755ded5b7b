"""Lines of conmon's log files (the kubernetes CRI format).

`2026-11-23T23:56:11.922588638+00:00 stdout F text`: tag F ends a line, P is a part of one.
"""

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class LogLine:
    """One entry: a whole line or a part of one."""

    time_ns: int
    stamp: str
    """RFC 3339 with nanoseconds, in UTC, as docker prints it."""
    is_stderr: bool
    is_partial: bool
    text: bytes

    def payload(self, *, with_timestamp: bool) -> bytes:
        """Bytes for the client; a partial line has no line feed."""
        end = b"" if self.is_partial else b"\n"
        if with_timestamp:
            return self.stamp.encode() + b" " + self.text + end
        return self.text + end


def parse(line: bytes) -> LogLine | None:
    """Parse one line without its line feed; None if it is not one (torn by a crash)."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P") or parts[1] not in (b"stdout", b"stderr"):
        return None
    stamp = parts[0].decode("ascii", "replace")
    time_ns = parse_time(stamp)
    if time_ns is None:
        return None
    return LogLine(
        time_ns=time_ns,
        stamp=in_utc(time_ns),
        is_stderr=parts[1] == b"stderr",
        is_partial=parts[2] == b"P",
        text=parts[3],
    )


def parse_time(stamp: str) -> int | None:
    """Nanoseconds since the epoch of an RFC 3339 time; None if it is not one."""
    whole, dot, rest = stamp.partition(".")
    digits = ""
    zone = stamp[19:]
    if dot:
        digits = rest.rstrip("Z")
        for mark in "+-":
            digits = digits.partition(mark)[0]
        zone = rest[len(digits) :]
    try:
        moment = datetime.fromisoformat(whole[:19] + (zone or "Z"))
        fraction_ns = int((digits + "000000000")[:9])
    except ValueError:
        return None
    return int(moment.timestamp()) * 1_000_000_000 + fraction_ns


def in_utc(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, as docker prints it."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).utctimetuple()
    return (
        f"{moment.tm_year:04d}-{moment.tm_mon:02d}-{moment.tm_mday:02d}T"
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d}.{rest:09d}Z"
    )
