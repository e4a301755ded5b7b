"""How images are shown: familiar names by digest, times."""

from collections.abc import Iterable
from datetime import datetime

from labfleet_proto.images import ManifestRecord, familiar_repository


def digests(records: Iterable[ManifestRecord]) -> tuple[str, ...]:
    """Familiar references by digest, such as `busybox@sha256:...`."""
    return tuple(sorted({f"{familiar_repository(r.repository)}@{r.digest}" for r in records}))


def seconds(stamp: str) -> int:
    """Seconds since the epoch of an RFC 3339 time; 0 if there is none."""
    try:
        return int(datetime.fromisoformat(stamp[:19] + "+00:00").timestamp())
    except ValueError:
        return 0
