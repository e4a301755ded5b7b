"""Times as Go prints them: docker's own messages have them so."""

_NANO = 1_000_000_000


def in_go(seconds: float) -> str:
    """`50ms`, `1.5s`, `1m30s`, `2h0m0s`; `0s` for nothing."""
    total_ns = round(seconds * _NANO)
    if total_ns < _NANO:
        for unit, size in (("ms", 1_000_000), ("\u00b5s", 1000)):
            if total_ns >= size:
                return f"{_plain(total_ns / size)}{unit}"
        return f"{total_ns}ns" if total_ns else "0s"
    minutes, rest_ns = divmod(total_ns, 60 * _NANO)
    text = f"{_plain(rest_ns / _NANO)}s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"


def _plain(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")
