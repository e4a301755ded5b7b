"""Times in docker's forms."""

import re
from datetime import UTC, datetime, timedelta

from labfleet_proto.errors import InvalidRequestError

ZERO = "0001-01-01T00:00:00Z"
"""Go's zero time, which docker sends for "never"."""

_UNIX = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?")
_FRACTION = re.compile(r"[.,](\d+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = (
    (48, 1, "hours"),
    (24 * 14, 24, "days"),
    (24 * 60, 24 * 7, "weeks"),
    (24 * 365 * 2, 24 * 30, "months"),
)


def rfc3339(time_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 with nine decimals; 0 is Go's zero time."""
    if time_ns <= 0:
        return ZERO
    seconds, rest = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def parse_time(text: str, name: str) -> int:
    """`seconds[.fraction]` or RFC 3339 as nanoseconds; empty is 0. Raises InvalidRequestError."""
    if not text:
        return 0
    found = _UNIX.fullmatch(text)
    if found is not None:
        fraction = (found[2] or "").ljust(9, "0")
        return int(found[1]) * 1_000_000_000 + int(fraction)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidRequestError(f"{name}: {text!r} is neither Unix time nor RFC 3339") from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment.replace(microsecond=0) - _EPOCH) // timedelta(seconds=1)
    fraction = _FRACTION.search(text)  # datetime has only six of its digits
    return seconds * 1_000_000_000 + (int(fraction[1][:9].ljust(9, "0")) if fraction else 0)


def human(duration_s: float) -> str:
    """A duration in words, after docker's go-units `HumanDuration`."""
    seconds = int(duration_s)
    minutes = seconds // 60
    hours = int(duration_s / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for below, unit, word in _UNITS:
        if hours < below:
            return f"{hours // unit} {word}"
    return f"{hours // (24 * 365)} years"
