"""Docker's reference grammar, and the one canonical name that this store gives a repository.

Our store is the default registry: `busybox`, `library/busybox`, `docker.io/library/busybox` and
`<our domain>/busybox` are the same repository `busybox`. Other domains stay as a path prefix.
The grammar is that of distribution/reference (Apache-2.0), without IPv6 domains.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest

_LONGEST_NAME = 255
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_DOMAIN_NAME = re.compile(_DOMAIN)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_ID_PREFIX = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True)
class Reference:
    """A parsed image name with its canonical repository; the tag is `latest` when none was given."""

    repository: str
    tag: str | None
    digest: Digest | None = None

    @property
    def familiar(self) -> str:
        """As docker prints it: `busybox:latest` or `busybox@sha256:...`."""
        if self.digest is not None:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag}"


def is_digest(text: str) -> bool:
    """Whether `text` is a digest this store keeps: sha256, lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether `text` is a tag."""
    return _TAG.fullmatch(text) is not None


def is_full_id(text: str) -> bool:
    """Whether `text` is a whole image id; docker never takes such a text for a name."""
    return _IMAGE_ID.fullmatch(text) is not None


def is_id_prefix(text: str) -> bool:
    """Whether `text` may be the beginning of an image id."""
    return _ID_PREFIX.fullmatch(text) is not None


def canonical_repository(name: str, domains: Collection[str] = ()) -> str:
    """Return the canonical repository of `name`; `domains` are those that mean this store.

    Raises InvalidRequestError with docker's words.
    """
    domain, path = _split_domain(name)
    if domain and (domain in _HUB or domain in domains):
        domain = ""
    if path != path.lower():
        raise InvalidRequestError(
            f"invalid reference format: repository name ({path}) must be lowercase"
        )
    if _PATH.fullmatch(path) is None or (domain and _DOMAIN_NAME.fullmatch(domain) is None):
        raise InvalidRequestError("invalid reference format")
    if not domain and path.startswith("library/") and path.count("/") == 1:
        path = path.removeprefix("library/")
    whole = f"{domain.lower()}/{path}" if domain else path
    if len(whole) > _LONGEST_NAME:
        raise InvalidRequestError(
            f"repository name must not be more than {_LONGEST_NAME} characters"
        )
    return whole


def parse_reference(text: str, domains: Collection[str] = ()) -> Reference:
    """Parse `name`, `name:tag`, `name@digest` or `name:tag@digest`.

    Raises InvalidRequestError with docker's words.
    """
    if is_full_id(text) and not text.startswith("sha256:"):
        raise InvalidRequestError(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise InvalidRequestError("invalid reference format")
    tag: str | None = None
    head, colon, tail = name.rpartition(":")
    if colon and "/" not in tail:
        name, tag = head, tail
        if not is_tag(tag):
            raise InvalidRequestError("invalid reference format")
    repository = canonical_repository(name, domains)
    if at:
        return Reference(repository, tag, Digest(digest))
    return Reference(repository, tag or "latest")


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    return (first, rest) if is_domain else ("", name)
