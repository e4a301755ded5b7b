"""What a credential may do with which repositories of the registry, and which of them are shared.

Patterns are of repositories' names as clients write them: `*` is any text within one component, `**` any
text at all; so `lab/*` is `lab/box` and not `lab/box/more`, and `lab/**` is both.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.message import Message

_LONGEST_PATTERN = 255
_PATTERN = re.compile(r"[a-z0-9*][a-z0-9._*:-]*(?:/[a-z0-9*][a-z0-9._*-]*)*")
LIBRARY = "*"
"""The pattern that is shared unless somebody says otherwise: names without a slash, docker's `library/`."""


class Action(StrEnum):
    """What is done with a repository (token authentication of the distribution project)."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


class RepositoryGrant(Message):
    """Leave to do some things with the repositories that a pattern names."""

    pattern: str
    actions: tuple[Action, ...]


class SharedRecord(Message):
    """Value of bucket `shared`: that the operators' repositories of a pattern are everybody's to read, or not."""

    pattern: str
    is_shared: bool
    changed_at_ns: int


def checked_pattern(text: str) -> str:
    """Return a pattern. Raises InvalidRequestError."""
    if len(text) > _LONGEST_PATTERN or _PATTERN.fullmatch(text) is None:
        raise InvalidRequestError(
            f"repository {text!r}: a name or a pattern such as busybox, lab/* or course/**"
        )
    return text.removeprefix("library/") if text.count("/") == 1 else text


def checked_actions(names: Iterable[str]) -> tuple[Action, ...]:
    """Return the actions that are meant. Raises InvalidRequestError."""
    wanted = set(names)
    if not wanted or not wanted <= set(Action):
        words = ", ".join(sorted(wanted)) or "none"
        raise InvalidRequestError(f"actions {words}: there are {', '.join(Action)}")
    return tuple(action for action in Action if action in wanted)


def is_pattern(text: str) -> bool:
    """Whether it may mean more than one repository."""
    return "*" in text


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern means a repository."""
    return _compiled(pattern).fullmatch(name) is not None


def granted(grants: Iterable[RepositoryGrant], name: str, action: Action) -> bool:
    """Whether one of the grants allows it."""
    return any(action in grant.actions and matches(grant.pattern, name) for grant in grants)


def is_shared_by(records: Iterable[SharedRecord], name: str) -> bool:
    """Whether the operators' repository is everybody's to read: its own record says it, else patterns do."""
    known = {record.pattern: record.is_shared for record in records}
    if name in known:
        return known[name]
    known.setdefault(LIBRARY, True)
    return any(is_shared and matches(pattern, name) for pattern, is_shared in known.items())


def shared_patterns(records: Iterable[SharedRecord]) -> list[tuple[str, bool]]:
    """The list as people see it, the default with it."""
    known = {record.pattern: record.is_shared for record in records}
    known.setdefault(LIBRARY, True)
    return sorted(known.items())


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    words = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(words.get(part) or re.escape(part) for part in parts))
