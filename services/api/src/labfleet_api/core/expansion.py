"""Variables in the words of a Dockerfile instruction, as the classic builder replaces them."""

import re
from collections.abc import Mapping, Sequence

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+?])((?:[^}\\]|\\.)*))?\})")


def variables(env: Sequence[str]) -> dict[str, str]:
    """Entries such as `A=b` as a map."""
    return {name: value for name, _, value in (entry.partition("=") for entry in env)}


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Replace `$NAME`, `${NAME}`, `${NAME:-else}` and `${NAME:+then}` outside of single quotes.

    Quotes and backslashes stay for whoever splits the words.
    """
    made, at, quote = "", 0, ""
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'":
            made, at = made + text[at : at + 2], at + 2
            continue
        found = _VARIABLE.match(text, at) if char == "$" and quote != "'" else None
        if found is not None:
            made, at = made + _value(found, values), found.end()
            continue
        if char in "\"'" and quote in ("", char):
            quote = "" if quote else char
        made, at = made + char, at + 1
    return made


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    value = values.get(found[1] or found[2])
    kind, word = found[3] or "", found[4] or ""
    is_set = value is not None and not (kind.startswith(":") and not value)
    if kind.endswith("+"):
        return expanded(word, values) if is_set else ""
    if kind.endswith("-") and not is_set:
        return expanded(word, values)
    return value or ""
