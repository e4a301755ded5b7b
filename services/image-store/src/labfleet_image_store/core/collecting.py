"""Which references to blobs may go: those that nothing marks, looked at twice, and old enough."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """That a repository refers to a blob."""

    repository: str
    digest: str
    renewed_at_s: float
    """When it was made, or last named by somebody who pushes."""

    @property
    def key(self) -> tuple[str, str]:
        """What marks name it by."""
        return self.repository, self.digest


def certain(links: Iterable[Link], unread: AbstractSet[str]) -> list[Link]:
    """References of repositories all of whose manifests could be read: of the others nothing may go."""
    return [link for link in links if link.repository not in unread]


def unmarked(links: Iterable[Link], marked: AbstractSet[tuple[str, str]]) -> set[tuple[str, str]]:
    """References that no manifest and no container needs now."""
    return {link.key for link in links if link.key not in marked}


def doomed(
    links: Iterable[Link],
    marked: AbstractSet[tuple[str, str]],
    suspects: AbstractSet[tuple[str, str]],
    oldest_s: float,
) -> list[Link]:
    """References that may go: also unmarked in the pass before, and not renewed since `oldest_s`.

    A push that is under way has renewed its own; a container that was just recorded is marked by the
    second pass.
    """
    return [
        link
        for link in links
        if link.key not in marked and link.key in suspects and link.renewed_at_s < oldest_s
    ]
