"""Docker's `filters` parameter: JSON of lists, or of maps with true values."""

import fnmatch
import json
from collections.abc import Mapping, Sequence

from labfleet_proto.errors import InvalidRequestError

Filters = dict[str, tuple[str, ...]]


def parse_filters(text: str, known: frozenset[str]) -> Filters:
    """Parse `filters`; empty text means none, as does a filter without values (docker's rule).

    Raises InvalidRequestError, naming an unknown filter.
    """
    if not text:
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequestError(f"filters: invalid JSON: {exc}") from exc
    if not isinstance(given, dict):
        raise InvalidRequestError("filters: must be a JSON object")
    found: Filters = {}
    for name, values in given.items():
        if name not in known:
            raise InvalidRequestError(f"invalid filter '{name}'")
        found[name] = _values(name, values)
    return {name: values for name, values in found.items() if values}


def _values(name: str, values: object) -> tuple[str, ...]:
    if isinstance(values, Mapping):
        values = [key for key, is_set in values.items() if is_set]
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InvalidRequestError(f"filters: {name}: must be a list or a map")
    return tuple(str(value) for value in values)


def labels_match(wanted: Sequence[str], labels: Mapping[str, str]) -> bool:
    """Whether every `key` or `key=value` of `wanted` is among the labels."""
    for text in wanted:
        key, sign, value = text.partition("=")
        if key not in labels or (sign and labels[key] != value):
            return False
    return True


def any_path(patterns: Sequence[str], text: str) -> bool:
    """Whether one of the shell patterns matches, part by part: no star reaches over a slash, as in Go."""
    parts = text.split("/")
    return any(
        len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))
        for wanted in (pattern.replace("[^", "[!").split("/") for pattern in patterns)
    )


def truth(text: str, name: str) -> bool:
    """A boolean filter's value. Raises InvalidRequestError."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidRequestError(f"invalid filter '{name}={text}'")
