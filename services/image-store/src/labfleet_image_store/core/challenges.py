"""What a registry asks for in `WWW-Authenticate` (RFC 9110 section 11, distribution's token specification)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|$)(?!=)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Challenge:
    """One scheme, in lower case, with its parameters."""

    scheme: str
    parameters: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """A parameter; empty if it is not there."""
        return dict(self.parameters).get(name, "")


def parse(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge of the headers' values; what cannot be read ends its header."""
    found = []
    for header in headers:
        place = 0
        while (scheme := _SCHEME.match(header, place)) is not None:
            place = scheme.end()
            parameters = []
            while (part := _PARAMETER.match(header, place)) is not None:
                place = part.end()
                value = part[2] if part[2] is not None else part[3]
                parameters.append((part[1].lower(), re.sub(r"\\(.)", r"\1", value)))
            found.append(Challenge(scheme[1].lower(), tuple(parameters)))
    return found


def best(challenges: Iterable[Challenge]) -> Challenge | None:
    """The one to answer: Bearer with a realm before Basic."""
    every = list(challenges)
    for challenge in every:
        if challenge.scheme == "bearer" and challenge.get("realm"):
            return challenge
    return next((each for each in every if each.scheme == "basic"), None)
