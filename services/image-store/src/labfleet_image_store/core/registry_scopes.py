"""What a request to the registry needs, and what a client asks a token for (distribution's token scopes)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from labfleet_image_store.core.references import canonical
from labfleet_proto.registry_access import Action

REPOSITORY = "repository"
_REGISTRY = "registry"
_CATALOG = "catalog"
_EVERY = "*"
_MOST_SCOPES = 64
_LONGEST_SCOPE = 512
_KIND = re.compile(r"repository(?:\([a-z0-9]+\))?")


@dataclass(frozen=True)
class Access:
    """Some actions on one repository, or on the list of all of them (`registry:catalog:*`)."""

    kind: str
    name: str
    actions: frozenset[str]

    @property
    def words(self) -> str:
        """As a scope is written, actions in the usual order."""
        order = [*Action, _EVERY]
        shown = sorted(self.actions, key=lambda each: (order.index(each), each))
        return f"{self.kind}:{self.name}:{','.join(shown)}"

    @property
    def usual(self) -> "Access":
        """What a client had better ask for: whoever pushes looks first what is there."""
        more = {Action.PULL} if Action.PUSH in self.actions else set()
        return replace(self, actions=self.actions | more)

    def covers(self, need: "Access") -> bool:
        """Whether all that is needed is in it."""
        is_same = (self.kind, self.name) == (need.kind, need.name)
        return is_same and need.actions <= self.actions


CATALOG = Access(_REGISTRY, _CATALOG, frozenset({_EVERY}))


def of_repository(name: str, *actions: Action) -> Access:
    """Access to one repository."""
    return Access(REPOSITORY, canonical(name), frozenset(actions))


def needed(kind: str, method: str, name: str | None) -> Access | None:
    """What a request of a route needs; None for what any credential may ask."""
    if kind == _CATALOG:
        return CATALOG
    if name is None:
        return None
    if kind in ("uploads", "upload"):
        return of_repository(name, Action.PUSH)
    if method in ("GET", "HEAD"):
        return of_repository(name, Action.PULL)
    if method == "DELETE":
        return of_repository(name, Action.DELETE)
    return of_repository(name, Action.PUSH)


def asked(scopes: Iterable[str]) -> tuple[Access, ...]:
    """Parse the scopes of a token request; what is not known is nothing. Raises ValueError for too many."""
    words = [word for text in scopes for word in text.split(" ") if word]
    if len(words) > _MOST_SCOPES:
        raise ValueError(f"{len(words)} scopes; at most {_MOST_SCOPES} are taken")
    found: dict[tuple[str, str], frozenset[str]] = {}
    for word in words:
        kind, _, rest = word.partition(":")
        name, colon, actions = rest.rpartition(":")
        if not colon or len(word) > _LONGEST_SCOPE:
            continue
        wanted = frozenset(actions.split(","))
        if (kind, name) == (_REGISTRY, _CATALOG):
            key, known = (kind, name), wanted & {_EVERY}
        elif _KIND.fullmatch(kind):
            key = (REPOSITORY, canonical(name))
            known = frozenset(Action) if _EVERY in wanted else wanted & frozenset(Action)
        else:
            continue
        found[key] = found.get(key, frozenset()) | known
    return tuple(Access(kind, name, actions) for (kind, name), actions in found.items())
