"""Authorization at upstreams: Basic, and Bearer tokens from the server that the upstream names."""

import base64
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from labfleet_image_store.core import challenges
from labfleet_image_store.core.challenges import Challenge
from labfleet_image_store.core.upstreams import Trouble, Upstream, UpstreamError
from labfleet_proto.upstreams import RegistryLogin

_LIFE_S = 60.0
"""Of a token whose server does not say: the token specification's."""
_SPARE_S = 10.0
_MOST_BYTES = 1 << 20
_CLIENT = "labfleet"
_MOST_KEPT = 4096


@dataclass(frozen=True)
class _Token:
    text: str
    until_s: float


class UpstreamTokens:
    """Remembers what each upstream wants for each scope; nothing of it outlives the process."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[Upstream, str], _Token] = {}
        self._basic: set[Upstream] = set()

    def known(self, upstream: Upstream, scope: str) -> dict[str, str]:
        """Headers that worked before; none if nothing is known."""
        if upstream.login.registry_token:
            return {"Authorization": f"Bearer {upstream.login.registry_token}"}
        if upstream in self._basic:
            return {"Authorization": basic(upstream.login)}
        token = self._tokens.get((upstream, scope))
        if token is not None and token.until_s > time.monotonic():
            return {"Authorization": f"Bearer {token.text}"}
        return {}

    async def answer(
        self, http: httpx.AsyncClient, upstream: Upstream, refusal: httpx.Response, scope: str
    ) -> dict[str, str]:
        """Headers for a request that was refused with 401. Raises UpstreamError."""
        found = challenges.best(challenges.parse(refusal.headers.get_list("www-authenticate")))
        if found is None:
            raise UpstreamError(Trouble.DENIED, "401 without a challenge that can be answered")
        if found.scheme == "basic":
            if not upstream.login.username:
                raise UpstreamError(Trouble.DENIED, "it wants a user and a password")
            self._basic.add(upstream)
            return {"Authorization": basic(upstream.login)}
        token = await self._fetch(http, upstream, found, scope)
        if len(self._tokens) >= _MOST_KEPT:
            self._tokens.clear()
        self._tokens[upstream, scope] = token
        return {"Authorization": f"Bearer {token.text}"}

    async def _fetch(
        self, http: httpx.AsyncClient, upstream: Upstream, wanted: Challenge, scope: str
    ) -> _Token:
        realm = wanted.get("realm")
        query = {"service": wanted.get("service"), "scope": wanted.get("scope") or scope}
        query = {key: value for key, value in query.items() if value}
        login = upstream.login
        if (login.username or login.identity_token) and not _may_have_login(realm, upstream):
            raise UpstreamError(
                Trouble.FAILED, f"its token server {realm} would get the password without TLS"
            )
        if login.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": login.identity_token}
            request = http.build_request("POST", realm, data=form | query | {"client_id": _CLIENT})
        else:
            headers = {"Authorization": basic(login)} if login.username else {}
            account = {"account": login.username} if login.username else {}
            request = http.build_request(
                "GET", httpx.URL(realm).copy_merge_params(query | account), headers=headers
            )
        answer = await http.send(request, stream=True)
        try:
            body = await read_limited(answer, _MOST_BYTES)
        finally:
            await answer.aclose()
        if answer.status_code in (400, 401, 403):
            raise UpstreamError(Trouble.DENIED, f"its token server says {answer.status_code}")
        if answer.status_code != 200:
            raise UpstreamError(Trouble.FAILED, f"its token server says {answer.status_code}")
        return _read(body)


def _may_have_login(realm: str, upstream: Upstream) -> bool:
    """A password goes to a token server by TLS, or to the machine that gets it in any case."""
    there = urlsplit(realm)
    return there.scheme == "https" or there.hostname == urlsplit(upstream.url).hostname


def _read(body: bytes) -> _Token:
    try:
        document = json.loads(body)
        text = document.get("token") or document["access_token"]
        life_s = float(document.get("expires_in") or _LIFE_S)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise UpstreamError(Trouble.FAILED, "its token server's answer is no token") from exc
    if not isinstance(text, str) or not text.isascii() or not text.isprintable():
        raise UpstreamError(Trouble.FAILED, "its token server's answer is no token")
    return _Token(text, time.monotonic() + max(life_s - _SPARE_S, 0))


def basic(login: RegistryLogin) -> str:
    """The value of `Authorization` for a user and a password."""
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


async def read_limited(answer: httpx.Response, limit: int) -> bytes:
    """Read a body that is not to be large. Raises UpstreamError, httpx.HTTPError."""
    got = bytearray()
    async for data in answer.aiter_bytes():
        got += data
        if len(got) > limit:
            raise UpstreamError(Trouble.FAILED, f"its answer is larger than {limit} bytes")
    return bytes(got)
