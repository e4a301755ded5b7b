"""Which endpoint of the distribution-spec a path names."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["base", "catalog", "tags", "manifest", "blob", "uploads", "upload", "referrers"]

_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("base", re.compile(r"/v2/?")),
    ("catalog", re.compile(r"/v2/_catalog")),
    ("uploads", re.compile(r"/v2/(?P<name>.+)/blobs/uploads/?")),
    ("upload", re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<what>[^/]+)")),
    ("blob", re.compile(r"/v2/(?P<name>.+)/blobs/(?P<what>[^/]+)")),
    ("tags", re.compile(r"/v2/(?P<name>.+)/tags/list")),
    ("manifest", re.compile(r"/v2/(?P<name>.+)/manifests/(?P<what>[^/]+)")),
    ("referrers", re.compile(r"/v2/(?P<name>.+)/referrers/(?P<what>[^/]+)")),
)


@dataclass(frozen=True)
class Route:
    """An endpoint, the repository's name as the client wrote it, and what in it."""

    kind: Kind
    name: str = ""
    what: str = ""
    """A tag, digest or upload id."""


def route_of(path: str) -> Route | None:
    """Return the endpoint of a decoded path, or None."""
    for kind, pattern in _PATTERNS:
        found = pattern.fullmatch(path)
        if found is not None:
            parts = found.groupdict()
            return Route(kind, parts.get("name", ""), parts.get("what", ""))
    return None
