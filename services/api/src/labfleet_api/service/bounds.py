"""How much a request may send: refused before it is read where its length says so, else while it comes."""

import asyncio
import contextlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labfleet_api.core.problems import BodyTooLargeError, BodyTooSlowError
from labfleet_api.service.http import MOST_BODY, problem

MOST_UPLOAD = 64 << 30
"""Archives, build contexts, images."""
_UPLOADS = re.compile(r"/containers/[^/]+/archive|/build|/images/load|/images/create")
_LINGER_S = 2.0
_SMALL_LIMIT_S = 60.0
"""For all of a small body."""
_IDLE_LIMIT_S = 120.0
"""For the next piece of an upload."""


def limit_of(path: str) -> int:
    """The most bytes that a request of this path may send."""
    return MOST_UPLOAD if _UPLOADS.fullmatch(path) else MOST_BODY


class Bounded:
    """A pure ASGI wrapper; what is too large hears 413."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the length that is announced, and count what comes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = limit_of(scope["path"])
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            await _refuse(scope, receive, send, most)
            return
        body = _Body(receive, most)
        await self._app(scope, body.receive, send)


class _Body:
    """A request's body: counted, and not awaited for ever."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._most = most
        self._got = 0
        self._is_whole = False
        is_small = most == MOST_BODY
        self._until_s = asyncio.get_running_loop().time() + _SMALL_LIMIT_S if is_small else None

    async def receive(self) -> Message:
        """The next piece. Raises BodyTooLargeError, BodyTooSlowError.

        After the last one it waits for the client to go away, without a limit: streams last.
        """
        if self._is_whole:
            return await self._receive()
        until_s = self._until_s or asyncio.get_running_loop().time() + _IDLE_LIMIT_S
        try:
            async with asyncio.timeout_at(until_s):
                message = await self._receive()
        except TimeoutError as exc:
            raise BodyTooSlowError("the body did not come in time") from exc
        self._got += len(message.get("body", b""))
        self._is_whole = not message.get("more_body")
        if self._got > self._most:
            raise BodyTooLargeError(f"the body is larger than {self._most} bytes")
        return message


async def _refuse(scope: Scope, receive: Receive, send: Send, most: int) -> None:
    """Answer, and take and drop what still comes for a moment.

    A connection that is closed with bytes unread is reset, and the client would not hear the answer.
    """

    async def holding(message: Message) -> None:
        await send({**message, "more_body": True} if "body" in message else message)

    await problem(413, f"the body is larger than {most} bytes")(scope, receive, holding)
    with contextlib.suppress(TimeoutError):  # it goes on sending: the connection is closed on it
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body"):
                continue
    await send({"type": "http.response.body", "body": b""})
