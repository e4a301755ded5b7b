"""The registry's token server: `GET` and `POST` of distribution's token authentication, and its challenges.

A bearer token is for some repositories and a few minutes; a refresh token stands for a password that a client
does not want to keep. Both end with the credential that they were made of.
"""

import datetime as dt
import json
import re
from typing import Any
from urllib.parse import parse_qs

from labfleet_chassis.credentials import split_authorization
from labfleet_image_store.core import bearer, registry_scopes
from labfleet_image_store.core.bearer import Claims, Use
from labfleet_image_store.core.registry_scopes import Access
from labfleet_image_store.service.door import Door, Visitor
from labfleet_image_store.service.registry_request import RegistryError, Request

TOKEN_PATH = "/v2/token"  # noqa: S105 - a path
SERVICE = "labfleet"
_LIFE_S = 300
_REFRESH_LIFE_S = 90 * 86_400
_MOST_FORM_BYTES = 64 << 10
_NS_PER_S = 1_000_000_000
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")
_PLAIN = re.compile(r"[A-Za-z0-9._/:-]{1,255}")
"""Names that may stand in a header: they come from the request's path."""
_NO_CREDENTIAL = "authentication required: log in with a token"


def challenge(request: Request, needs: tuple[Access, ...], error: str = "") -> dict[str, str]:
    """The header of a 401: where to get a token, and for what.

    Basic is taken, too, and not named: docker's client would answer both, and fail where it has only a token.
    """
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host) is None:
        host = request.server
    parts = [f'Bearer realm="{request.scheme}://{host}{TOKEN_PATH}"', f'service="{SERVICE}"']
    scopes = [need.usual.words for need in needs if _PLAIN.fullmatch(need.name)]
    if scopes:
        parts.append(f'scope="{" ".join(scopes)}"')
    if error:
        parts.append(f'error="{error}"')
    return {"WWW-Authenticate": ",".join(parts)}


def entered(door: Door, request: Request, needs: tuple[Access, ...]) -> Visitor:
    """Who asks, if all of it may be done. Raises RegistryError with the challenge."""
    authorization = request.headers.get("authorization", "")
    visitor = door.admit(authorization)
    if visitor is None:
        error = "invalid_token" if authorization else ""
        raise RegistryError(
            401, "UNAUTHORIZED", _NO_CREDENTIAL, headers=challenge(request, needs, error)
        )
    for need in needs:
        if not visitor.has(need):
            raise RegistryError(
                403, "DENIED", f"the token's scopes do not allow {request.method}: {need.words}"
            )
        if not visitor.covers(need):
            raise RegistryError(
                401,
                "UNAUTHORIZED",
                f"the bearer token is not for {need.words}",
                headers=challenge(request, needs, "insufficient_scope"),
            )
    return visitor


class TokenServer:
    """Makes tokens for those who have a password."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def get(self, request: Request) -> None:
        """Answer `GET`, with the password in the Authorization header."""
        user, secret = split_authorization(request.headers.get("authorization", ""))
        visitor = self._door.owner(user, secret)
        if visitor is None:
            raise RegistryError(
                401,
                "UNAUTHORIZED",
                _NO_CREDENTIAL,
                headers={"WWW-Authenticate": 'Basic realm="Labfleet"'},
            )
        is_offline = request.asked("offline_token") == "true"
        document = self._made(visitor, request.query.get("scope", []))
        if is_offline:
            document["refresh_token"] = self._refresh(visitor)
        await _answer(request, 200, document)

    async def post(self, request: Request) -> None:
        """Answer `POST` (OAuth 2), with the password or a refresh token in the form."""
        body = await request.body(_MOST_FORM_BYTES)
        form = {
            key: values[0]
            for key, values in parse_qs(body.decode("latin-1"), encoding="utf-8").items()
        }
        kind = form.get("grant_type", "")
        if kind not in ("password", "refresh_token"):
            words = f"grant_type {kind!r}: password and refresh_token are taken"
            await _refusal(request, 400, "unsupported_grant_type", words)
            return
        visitor = self._of_form(kind, form)
        if visitor is None:
            await _refusal(request, 401, "invalid_grant", _NO_CREDENTIAL)
            return
        document = self._made(visitor, [form.get("scope", "")])
        if kind == "refresh_token":
            document["refresh_token"] = form["refresh_token"]
        elif form.get("access_type") == "offline":
            document["refresh_token"] = self._refresh(visitor)
        await _answer(request, 200, document)

    def _of_form(self, kind: str, form: dict[str, str]) -> Visitor | None:
        if kind == "password":
            return self._door.owner(form.get("username", ""), form.get("password", ""))
        now_s = self._door.clock.now_ns() / _NS_PER_S
        claims = bearer.read(form.get("refresh_token", ""), self._door.key, Use.REFRESH, now_s)
        return self._door.behind(claims) if claims is not None else None

    def _made(self, visitor: Visitor, scopes: list[str]) -> dict[str, Any]:
        try:
            wishes = registry_scopes.asked(scopes)
        except ValueError as exc:
            raise RegistryError(400, "UNSUPPORTED", str(exc)) from exc
        access = tuple(part for part in map(visitor.part_of, wishes) if part.actions)
        claims = self._claims(visitor, Use.ACCESS, access, _LIFE_S)
        text = bearer.signed(claims, self._door.key)
        issued = dt.datetime.fromtimestamp(claims.issued_at_s, dt.UTC)
        return {
            "token": text,
            "access_token": text,
            "token_type": "Bearer",
            "expires_in": claims.expires_at_s - claims.issued_at_s,
            "issued_at": issued.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scope": " ".join(each.words for each in access),
        }

    def _refresh(self, visitor: Visitor) -> str:
        return bearer.signed(
            self._claims(visitor, Use.REFRESH, (), _REFRESH_LIFE_S), self._door.key
        )

    def _claims(
        self, visitor: Visitor, use: Use, access: tuple[Access, ...], life_s: int
    ) -> Claims:
        now_s = self._door.clock.now_ns() // _NS_PER_S
        ends_s = now_s + life_s
        if visitor.expires_at_ns:
            ends_s = min(ends_s, max(visitor.expires_at_ns // _NS_PER_S, now_s + 1))
        return Claims(use, visitor.source, visitor.subject, access, now_s, ends_s)


async def _answer(request: Request, status: int, document: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    await request.reply(status, headers, json.dumps(document).encode())


async def _refusal(request: Request, status: int, word: str, message: str) -> None:
    """In the words of OAuth 2 and of the registry's specification: clients look for either."""
    code = "UNAUTHORIZED" if status == 401 else "UNSUPPORTED"
    errors = [{"code": code, "message": message, "detail": None}]
    await _answer(request, status, {"error": word, "error_description": message, "errors": errors})
