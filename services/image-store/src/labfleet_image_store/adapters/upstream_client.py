"""Requests of the OCI distribution specification to other registries, by httpx."""

import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from labfleet_chassis.clock import Clock
from labfleet_image_store.adapters.upstream_tokens import UpstreamTokens, read_limited
from labfleet_image_store.core import manifests, references
from labfleet_image_store.core.manifests import INDEX_TYPES, MANIFEST_TYPES, Manifest
from labfleet_image_store.core.ranges import parse_content_range
from labfleet_image_store.core.upstreams import Trouble, Upstream, UpstreamError
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest

_TIMEOUT = httpx.Timeout(15.0, connect=5.0)
"""Of each step: a body that stands still for so long has failed."""
_LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30)
_MOST_REDIRECTS = 5
_MOST_ERROR_BYTES = 64 << 10
_MOST_TAG_BYTES = 4 << 20
_MOST_TAGS = 10_000
_NO_HEAD = (405, 501)
_ACCEPT = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES, reverse=True))


@dataclass(frozen=True)
class RemoteManifest:
    """A manifest as an upstream sent it; its bytes have the digest."""

    digest: Digest
    body: bytes
    parsed: Manifest


@dataclass(frozen=True)
class RemoteBlob:
    """A blob on its way."""

    first: int
    """Which byte comes first."""
    chunks: AsyncIterator[bytes]


class UpstreamClient:
    """Talks to upstreams; one pool of connections for each set of certificates that is trusted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = UpstreamTokens()
        self._pools: dict[str, httpx.AsyncClient] = {}

    def _pool(self, ca_pem: str) -> httpx.AsyncClient:
        if ca_pem not in self._pools:
            try:
                trusted = ssl.create_default_context(cadata=ca_pem or None)
            except ssl.SSLError as exc:
                raise UpstreamError(Trouble.FAILED, f"its certificates: {exc}") from exc
            self._pools[ca_pem] = httpx.AsyncClient(
                verify=trusted,
                timeout=_TIMEOUT,
                limits=_LIMITS,
                follow_redirects=True,
                max_redirects=_MOST_REDIRECTS,
                trust_env=False,
                headers={"User-Agent": "labfleet", "Accept-Encoding": "identity"},
            )
        return self._pools[ca_pem]

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    @contextlib.asynccontextmanager
    async def _sent(
        self, upstream: Upstream, method: str, place: str, scope: str, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """An answer with a good status, its body not yet read. Raises UpstreamError."""
        pool = self._pool(upstream.ca_pem)
        url = place if "://" in place else upstream.url.rstrip("/") + place
        with _translated():
            login = self._tokens.known(upstream, scope)
            answer = await pool.send(
                pool.build_request(method, url, headers=headers | login), stream=True
            )
            try:
                if answer.status_code == 401 and not answer.history:
                    await answer.aclose()
                    login = await self._tokens.answer(pool, upstream, answer, scope)
                    answer = await pool.send(
                        pool.build_request(method, url, headers=headers | login), stream=True
                    )
                if not answer.is_success:
                    raise await self._trouble(answer)
                yield answer
            finally:
                await answer.aclose()

    async def _trouble(self, answer: httpx.Response) -> UpstreamError:
        status, code, words = answer.status_code, "", ""
        with contextlib.suppress(UpstreamError, ValueError, LookupError, TypeError):
            body = await read_limited(answer, _MOST_ERROR_BYTES)
            first = json.loads(body)["errors"][0]
            code, words = str(first["code"]), str(first.get("message") or "")
        message = f"{status} {code} {words}".strip()
        if answer.history and status in (401, 403):
            return UpstreamError(Trouble.FAILED, f"{message} from {answer.url.host}")
        if status == 404:
            return UpstreamError(Trouble.ABSENT, message, code=code)
        if status in (401, 403):
            return UpstreamError(Trouble.DENIED, message, code=code)
        if status == 429:
            rest_s = self._retry_after_s(answer.headers.get("retry-after", ""))
            return UpstreamError(Trouble.LIMITED, message, code=code, retry_after_s=rest_s)
        return UpstreamError(Trouble.FAILED, message, code=code, status=status)

    def _retry_after_s(self, header: str) -> float:
        if header.isascii() and header.isdigit():
            return float(min(int(header), 86_400))
        with contextlib.suppress(ValueError, TypeError):
            return max(parsedate_to_datetime(header).timestamp() - self._clock.now_ns() / 1e9, 0)
        return 0

    # -- what the store asks

    async def ping(self, upstream: Upstream) -> None:
        """Ask whether it is a registry, whoever may come in. Raises UpstreamError."""
        try:
            async with self._sent(upstream, "GET", "/v2/", "", {}):
                return
        except UpstreamError as exc:
            if exc.trouble is not Trouble.DENIED:
                raise

    async def head_manifest(self, upstream: Upstream, path: str, reference: str) -> str:
        """The digest that a reference has there; empty if it does not say. Raises UpstreamError."""
        place = f"/v2/{path}/manifests/{reference}"
        wanted = {"Accept": _ACCEPT}
        try:
            async with self._sent(upstream, "HEAD", place, _scope(path), wanted) as found:
                digest = str(found.headers.get("docker-content-digest", ""))
                return digest if references.is_digest(digest) else ""
        except UpstreamError as exc:
            if exc.status in _NO_HEAD:
                return ""
            raise

    async def manifest(self, upstream: Upstream, path: str, reference: str) -> RemoteManifest:
        """Get a manifest and check it. Raises UpstreamError."""
        place = f"/v2/{path}/manifests/{reference}"
        async with self._sent(upstream, "GET", place, _scope(path), {"Accept": _ACCEPT}) as found:
            body = await read_limited(found, manifests.MOST_BYTES)
            kind = found.headers.get("content-type", "").partition(";")[0].strip().lower()
            said = found.headers.get("docker-content-digest", "")
        digest = Digest(f"sha256:{hashlib.sha256(body).hexdigest()}")
        wanted = reference if references.is_digest(reference) else said
        if references.is_digest(wanted) and wanted != digest:
            raise UpstreamError(Trouble.FAILED, f"the bytes of manifest {wanted} are {digest}")
        try:
            parsed = manifests.parse(body, kind if kind in MANIFEST_TYPES | INDEX_TYPES else "")
        except InvalidRequestError as exc:
            raise UpstreamError(Trouble.FAILED, exc.message) from exc
        return RemoteManifest(digest, body, parsed)

    @contextlib.asynccontextmanager
    async def blob(
        self, upstream: Upstream, path: str, digest: str, start: int
    ) -> AsyncIterator[RemoteBlob]:
        """Get a blob from byte `start` on, or from its first if it will not. Raises UpstreamError."""
        ranged = {"Range": f"bytes={start}-"} if start else {}
        place = f"/v2/{path}/blobs/{digest}"
        async with self._sent(upstream, "GET", place, _scope(path), ranged) as found:
            first = 0
            if found.status_code == 206:
                try:
                    first, _ = parse_content_range(found.headers.get("content-range", ""))
                except ValueError as exc:
                    raise UpstreamError(Trouble.FAILED, f"its 206: {exc}") from exc
                if first != start:
                    raise UpstreamError(Trouble.FAILED, f"asked from {start} on, it sends {first}")
            yield RemoteBlob(first, found.aiter_raw())

    async def tags(self, upstream: Upstream, path: str) -> list[str]:
        """All tags of a repository, at most 10,000. Raises UpstreamError."""
        place, found = f"/v2/{path}/tags/list", list[str]()
        while place and len(found) < _MOST_TAGS:
            async with self._sent(upstream, "GET", place, _scope(path), {}) as answer:
                body = await read_limited(answer, _MOST_TAG_BYTES)
                following = answer.links.get("next", {}).get("url", "")
                place = str(answer.url.join(following)) if following else ""
                if place and httpx.URL(place).netloc != answer.url.netloc:
                    place = ""
            found += _tags(body)
        return found[:_MOST_TAGS]


def _tags(body: bytes) -> list[str]:
    try:
        document: dict[str, Any] = json.loads(body)
        tags = document.get("tags") or []
        return [tag for tag in tags if isinstance(tag, str) and references.is_tag(tag)]
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise UpstreamError(Trouble.FAILED, "its list of tags cannot be read") from exc


def _scope(path: str) -> str:
    return f"repository:{path}:pull"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What httpx raises, as an upstream's failure."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as exc:
        raise UpstreamError(Trouble.FAILED, str(exc) or type(exc).__name__) from exc
