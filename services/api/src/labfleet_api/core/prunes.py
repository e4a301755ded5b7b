"""Filters of the prune routes: `until`, `label`, `label!`."""

import re
from collections.abc import Mapping

from labfleet_api.core.filters import Filters, labels_match, parse_filters
from labfleet_api.core.times import parse_time
from labfleet_proto.errors import InvalidRequestError

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
_NS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000}
_NS |= {"us": 1000, "µs": 1000, "ns": 1}


def parse_prune_filters(text: str, *extra: str) -> Filters:
    """Parse `filters` of a prune route that knows `extra` ones too. Raises InvalidRequestError."""
    return parse_filters(text, frozenset({"until", "label", "label!", *extra}))


def is_pruned(wanted: Filters, labels: Mapping[str, str], created_at_ns: int, now_ns: int) -> bool:
    """Whether a thing with these labels, made then, is meant. Raises InvalidRequestError."""
    until = wanted.get("until", ())
    if len(until) > 1:
        raise InvalidRequestError("more than one until filter specified")
    if until and created_at_ns >= moment(until[0], now_ns):
        return False
    if not labels_match(wanted.get("label", ()), labels):
        return False
    return not any(labels_match((each,), labels) for each in wanted.get("label!", ()))


def moment(text: str, now_ns: int) -> int:
    """A time, or a duration such as `1h30m` before now, in nanoseconds. Raises InvalidRequestError."""
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now_ns - int(sum(float(number) * _NS[unit] for number, unit in parts))
    return parse_time(text, "until")
