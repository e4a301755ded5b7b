"""References to images, after the grammar of the distribution project (`reference/regexp.go`)."""

import re
from dataclasses import dataclass

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest
from labfleet_proto.upstreams import HUB

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_DOMAIN = re.compile(
    r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*:[0-9]{1,5}"
)
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
LONGEST_NAME = 255


@dataclass(frozen=True)
class Reference:
    """A repository of this store, and a tag or a digest in it."""

    repository: str
    tag: str | None
    digest: Digest | None

    @property
    def familiar(self) -> str:
        """As docker prints it."""
        return (
            f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"
        )


def is_digest(text: str) -> bool:
    """Whether it is a whole sha256 digest."""
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether it is a valid tag."""
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether it is a valid repository name."""
    return len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


def is_stored(text: str) -> bool:
    """Whether the store may have a repository of that name: it may begin with a domain and its port."""
    first, slash, rest = text.partition("/")
    if slash and _DOMAIN.fullmatch(first) is not None:
        return len(text) <= LONGEST_NAME and is_repository(rest)
    return is_repository(text)


def split_registry(repository: str) -> tuple[str, str]:
    """The registry that a repository's familiar name says, and its path there: docker's rule."""
    first, slash, rest = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return HUB, repository


def canonical(repository: str) -> str:
    """The one name of a repository: `library/busybox` is `busybox`."""
    first, _, rest = repository.partition("/")
    return rest if first == "library" and rest and "/" not in rest else repository


def id_prefix(text: str) -> str | None:
    """Hex digits of an image id or a prefix of one; None if it cannot be one."""
    found = _HEX.fullmatch(text)
    return found[1] if found else None


def parse(text: str, own_domains: frozenset[str]) -> Reference:
    """Parse what a user wrote; the tag defaults to `latest`.

    Raises InvalidRequestError with docker's words.
    """
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise InvalidRequestError(f"invalid reference format: {text!r}: the digest is malformed")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, colon, tag = rest, "", ""
    repository = _strip_domain(head, own_domains)
    if not is_stored(repository):
        hint = ": repository name must be lowercase" if head != head.lower() else ""
        raise InvalidRequestError(f"invalid reference format{hint}: {text!r}")
    if colon and not is_tag(tag):
        raise InvalidRequestError(f"invalid reference format: {text!r}: the tag is malformed")
    if digest:
        return Reference(canonical(repository), None, Digest(digest))
    return Reference(canonical(repository), tag or "latest", None)


def _strip_domain(name: str, own_domains: frozenset[str]) -> str:
    first, slash, rest = name.partition("/")
    if slash and (first in own_domains or first in _HUB):
        return rest
    return name
