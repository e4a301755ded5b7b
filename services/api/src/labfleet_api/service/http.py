"""What every route shares: bodies, JSON, errors, versions, metrics."""

import json
import re
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labfleet_api import metrics
from labfleet_api.core.engine_routes import refusal
from labfleet_api.core.json_words import check_content_type, json_problem
from labfleet_api.core.problems import BodyTooLargeError, field_problem, status_of
from labfleet_chassis.logs import Log
from labfleet_proto.errors import InvalidRequestError, LabfleetError

API_VERSION = "1.50"
LEAST_API_VERSION = "1.24"
MOST_BODY = 4 << 20
_CHALLENGE = 'Bearer realm="Labfleet"'
_ASKED = "labfleet.version"
_CLIENT_GONE = 499
"""For the metrics alone, as nginx counts it: nobody is there to read it."""
_VERSION = re.compile(r"/v(\d+)\.(\d+)(/.*)")

B = TypeVar("B", bound=BaseModel)


class Taken(Response):
    """Returned by a route that took the connection over: nothing is left to send."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON."""
    body = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    return Response(body, status, dict(headers or {}), "application/json")


def problem(status: int, message: str) -> Response:
    """Answer with docker's error body; 304 has none."""
    if status == 304:
        return Response(status_code=status)
    # Of a body that is too large the rest was not read: the connection is of no more use.
    headers = {413: {"Connection": "close"}, 401: {"WWW-Authenticate": _CHALLENGE}}.get(status)
    return answer({"message": message}, status, headers)


async def read_body(request: Request, model: type[B], most: int = MOST_BODY) -> B:
    """Read and check a JSON body; an empty one and `null` are an empty object, as for Go's decoder.

    Raises InvalidRequestError naming field and rule, BodyTooLargeError.
    """
    got = bytearray()
    async for chunk in request.stream():
        got += chunk
        if len(got) > most:
            raise BodyTooLargeError(f"the body is larger than {most} bytes")
    check_content_type(request.headers.get("content-type"), has_body=bool(got))
    says_nothing = got.strip() == b"null" or not got
    try:
        return model.model_validate_json(b"{}" if says_nothing else bytes(got))
    except ValidationError as exc:
        if exc.errors(include_url=False)[0]["type"] == "json_invalid":
            raise json_problem(bytes(got)) from exc
        raise field_problem(exc) from exc


def flag(request: Request, name: str, *, default: bool = False) -> bool:
    """A boolean query parameter, in the spellings that docker takes."""
    value = request.query_params.get(name)
    if value is None:
        return default
    return value.strip().lower() not in ("", "0", "no", "false", "none")


def number(request: Request, name: str, default: int) -> int:
    """An integer query parameter. Raises InvalidRequestError."""
    value = request.query_params.get(name)
    if not value:
        return default
    try:
        return int(value)
    except ValueError as exc:
        raise InvalidRequestError(f"{name}: {value!r} is not a number") from exc


def version_of(request: Request) -> tuple[int, int]:
    """The API version that the client asked for; without one, the newest."""
    asked: tuple[int, int] = request.scope.get(_ASKED) or _numbers(API_VERSION)
    return asked


class Versions:
    """Serves every path also below `/v1.NN/`; a pure ASGI wrapper."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Strip the version, or refuse it."""
        if scope["type"] == "http":
            found = _VERSION.fullmatch(scope["path"])
            if found is not None:
                asked = (int(found[1]), int(found[2]))
                if asked > _numbers(API_VERSION):
                    text = (
                        f"client version {found[1]}.{found[2]} is too new. "
                        f"Maximum supported API version is {API_VERSION}"
                    )
                    await problem(400, text)(scope, receive, send)
                    return
                if asked < _numbers(LEAST_API_VERSION):
                    text = (
                        f"client version {found[1]}.{found[2]} is too old. "
                        f"Minimum supported API version is {LEAST_API_VERSION}, "
                        "please upgrade your client to a newer version"
                    )
                    await problem(400, text)(scope, receive, send)
                    return
                scope = {**scope, _ASKED: asked, "path": found[3], "raw_path": found[3].encode()}
        await self._app(scope, receive, send)


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


class Measured:
    """Counts and times requests by route; a pure ASGI wrapper."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve and measure."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 101
        began = time.perf_counter()

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            metrics.REQUESTS.labels(scope["method"], route, str(status)).inc()
            metrics.DURATION.labels(scope["method"], route).observe(time.perf_counter() - began)


def install_errors(app: FastAPI, log: Log) -> None:
    """Answer our errors and unknown routes in docker's way."""

    async def on_known(request: Request, exc: Exception) -> Response:
        if not isinstance(exc, LabfleetError):
            raise exc
        status = status_of(exc)
        if status >= 500 and status != 501:
            log.warning("http.error", path=request.url.path, status=status, error=exc.message)
        return problem(status, exc.message)

    async def on_unknown(request: Request, exc: Exception) -> Response:
        if isinstance(exc, HTTPException) and exc.status_code in (404, 405):
            return problem(*refusal(request.method, request.url.path))
        raise exc

    async def on_gone(_request: Request, _exc: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    async def on_bug(request: Request, exc: Exception) -> Response:
        log.error("http.bug", path=request.url.path, exc_info=exc)
        return problem(500, f"labfleet: {type(exc).__name__}: {exc}")

    app.add_exception_handler(LabfleetError, on_known)
    app.add_exception_handler(HTTPException, on_unknown)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(Exception, on_bug)
