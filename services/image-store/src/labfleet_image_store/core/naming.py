"""How images are shown: familiar names by digest, times."""

from collections.abc import Iterable
from datetime import UTC, datetime

from labfleet_proto.images import ManifestRecord, familiar_repository, is_unnamed


def digests(records: Iterable[ManifestRecord]) -> tuple[str, ...]:
    """Familiar references by digest, such as `busybox@sha256:...`."""
    return tuple(
        sorted(
            {
                f"{familiar_repository(r.repository)}@{r.digest}"
                for r in records
                if not is_unnamed(r.repository)
            }
        )
    )


def seconds(stamp: str) -> int:
    """Seconds since the epoch of an RFC 3339 time; 0 if there is none."""
    try:
        return int(datetime.fromisoformat(stamp[:19] + "+00:00").timestamp())
    except ValueError:
        return 0


def nanoseconds(stamp: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time in UTC; 0 if there is none."""
    digits = stamp[20:].rstrip("Z") if stamp[19:20] == "." else ""
    fraction_ns = int((digits + "000000000")[:9]) if digits.isdecimal() else 0
    whole = seconds(stamp)
    return whole * 1_000_000_000 + fraction_ns if whole else 0


def rfc3339(time_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339."""
    whole, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
