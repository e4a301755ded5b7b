"""Which upstream is asked, in which order, and what it means when none has what is wanted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urlsplit

from labfleet_proto.errors import (
    ForbiddenError,
    LabfleetError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from labfleet_proto.upstreams import HUB, RegistryLogin, UpstreamRecord

NOBODY = RegistryLogin()
_FIRST_REST_S = 1.0
_LONGEST_REST_S = 60.0
_MOST_PATIENCE_S = 300.0


class Trouble(StrEnum):
    """What an upstream said instead of what was wanted."""

    ABSENT = "absent"
    """It is well and has not got it."""
    DENIED = "denied"
    """It wants another login."""
    LIMITED = "limited"
    """Too many requests."""
    FAILED = "failed"
    """It does not answer, or not what it should."""


class UpstreamError(Exception):
    """An upstream's trouble with one request; never leaves the store."""

    def __init__(
        self,
        trouble: Trouble,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        retry_after_s: float = 0,
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.message = message
        self.code = code
        """The registry's own, such as `MANIFEST_UNKNOWN`."""
        self.status = status
        """Of its answer; 0 if there was none."""
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Upstream:
    """A registry to ask, and as whom."""

    name: str
    url: str
    login: RegistryLogin = NOBODY
    ca_pem: str = ""

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True)
class Route:
    """Where the images of a registry come from."""

    registry: str
    upstreams: tuple[Upstream, ...]
    expiry_s: float
    private_to: str = ""
    """What came by a client's own login is kept for that login only: its fingerprint."""

    @property
    def key(self) -> str:
        """Names what was fetched by it."""
        return f"{self.registry}_{self.private_to}" if self.private_to else self.registry


@dataclass(frozen=True)
class Health:
    """What is remembered of an upstream."""

    failures: int = 0
    """In a row."""
    rests_until_s: float = 0
    word: str = ""


def after_success() -> Health:
    """It answered."""
    return Health()


def after_trouble(health: Health, error: UpstreamError, now_s: float) -> Health:
    """What an upstream's health is after a request; who only lacks something is well."""
    if error.trouble is Trouble.LIMITED:
        rest_s = min(error.retry_after_s or _FIRST_REST_S, _MOST_PATIENCE_S)
        return Health(health.failures, now_s + rest_s, error.message)
    if error.trouble is not Trouble.FAILED:
        return replace(health, failures=0, rests_until_s=0, word="")
    rest_s = min(_FIRST_REST_S * 2.0 ** min(health.failures, 10), _LONGEST_REST_S)
    return Health(health.failures + 1, now_s + rest_s, error.message)


def in_order(
    upstreams: Iterable[Upstream], healths: Mapping[str, Health], now_s: float
) -> list[Upstream]:
    """The well ones as the operators ordered them, then those that rest: who rests least, first."""

    def rest_s(upstream: Upstream) -> float:
        return max(healths.get(upstream.name, Health()).rests_until_s - now_s, 0)

    return sorted(upstreams, key=rest_s)


def route(
    records: Iterable[UpstreamRecord],
    registry: str,
    login: RegistryLogin,
    fingerprint: str,
    *,
    is_any_allowed: bool,
) -> Route | None:
    """The way to a registry's images; None if there is none.

    A client's login goes only to the registry that the image's name says, never to one that stands for
    it. `fingerprint` is the login's, with its owner. `is_any_allowed` is for operators: a registry that
    is not configured is asked itself.
    """
    chosen = [each for each in records if registry in (each.registry, host_of(each.url))]
    chosen.sort(key=lambda each: (each.position, each.name))
    is_used = False
    upstreams = []
    for record in chosen:
        own = RegistryLogin(username=record.username, password=record.password)
        is_named = registry == host_of(record.url) and not login.is_empty
        is_used = is_used or is_named
        upstreams.append(
            Upstream(record.name, record.url, login if is_named else own, record.ca_pem)
        )
    if not chosen and is_any_allowed and registry != HUB:
        is_used = not login.is_empty
        upstreams = [Upstream(url, url, login) for url in _urls_of(registry)]
    if not upstreams:
        return None
    expiry_s = min((each.expiry_s for each in chosen), default=0)
    return Route(registry, tuple(upstreams), expiry_s, fingerprint if is_used else "")


def host_of(url: str) -> str:
    """Host and port of a URL, as names begin with it."""
    return urlsplit(url).netloc


def _urls_of(registry: str) -> tuple[str, ...]:
    """Docker asks a registry on its own machine without TLS, too."""
    is_local = registry.partition(":")[0] == "localhost" or registry.startswith("127.")
    return (f"http://{registry}", f"https://{registry}") if is_local else (f"https://{registry}",)


def remote_paths(registry: str, path: str) -> tuple[str, ...]:
    """What a repository is called there, best first: Docker Hub's own live in `library/`.

    A registry that only stands for Docker Hub may have them without.
    """
    if registry == HUB and "/" not in path:
        return (f"library/{path}", path)
    return (path,)


def verdict(
    shown: str, repository: str, troubles: Sequence[tuple[Upstream, UpstreamError]]
) -> LabfleetError:
    """What a pull of `shown` failed for, in docker's words, when every upstream had trouble."""
    kinds = {error.trouble for _, error in troubles}
    failed = [
        f"{upstream.name}: {error.message}"
        for upstream, error in troubles
        if error.trouble in (Trouble.FAILED, Trouble.LIMITED)
    ]
    note = f" ({'; '.join(failed)})" if failed else ""
    absent = [error for _, error in troubles if error.trouble is Trouble.ABSENT]
    if any(error.code == "MANIFEST_UNKNOWN" for error in absent):
        return NotFoundError(
            f"manifest for {shown} not found: manifest unknown: manifest unknown{note}"
        )
    if absent or Trouble.DENIED in kinds:
        return NotFoundError(f"{denied(repository)}{note}")
    if kinds == {Trouble.LIMITED}:
        error = RateLimitedError(f"toomanyrequests: {'; '.join(failed)}")
        error.retry_after_s = max(each.retry_after_s for _, each in troubles)
        return error
    return UnavailableError(f"cannot pull {shown}: no mirror answers{note}")


def denied(repository: str) -> str:
    """Docker's words for a repository that no registry shows."""
    return (
        f"pull access denied for {repository}, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied"
    )


def not_open(registry: str, repository: str) -> ForbiddenError:
    """What a tenant hears of a registry that the operators have not named."""
    return ForbiddenError(
        f"pull of {repository}: this fleet's operators have not opened the registry {registry}; "
        "they do by `labfleet mirror add`"
    )
