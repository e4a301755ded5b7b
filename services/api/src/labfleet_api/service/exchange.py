"""Answers whose other end is a host or the image store: framed streams, in one or both directions."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from labfleet_api.core.problems import status_of
from labfleet_api.service.http import problem
from labfleet_chassis import frames
from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import LabfleetError, UnavailableError


class _GoneError(Exception):
    """The client went away."""


async def body_of(receive: Receive) -> AsyncIterator[bytes]:
    """A request's body as it comes. Raises ClientDisconnect."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = bool(message.get("more_body"))
        if message.get("body"):
            yield message["body"]


async def feed(peer: ByteStream, receive: Receive) -> None:
    """Send a request's body to a peer, which learns whether it was whole. Raises ClientDisconnect."""
    with contextlib.suppress(ConnectionError):  # the peer has heard enough: its answer says why
        async for data in body_of(receive):
            await frames.send(peer, data)
        await frames.end(peer)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _GoneError


def error_line(error: LabfleetError, code: int | None = None) -> bytes:
    """An error in docker's stream of JSON lines."""
    detail: dict[str, Any] = {"message": error.message}
    if code is not None:
        detail["code"] = code
    return line_of({"errorDetail": detail, "error": error.message})


def line_of(document: dict[str, Any]) -> bytes:
    """One line of docker's stream of JSON."""
    return json.dumps(document).encode() + b"\r\n"


Feeding = Callable[[ByteStream, Receive], Awaitable[None]]
"""Sends a peer what it waits for; a LabfleetError is handed on to it, so that it answers with that."""


class Exchange(Response):
    """Feeds a request's body to a peer while the peer's words are the answer.

    When the client goes away, the peer's stream is cut. A peer that fails ends the answer with an
    error line, or, if it is no stream of lines, cuts the connection. One that fails before its first word
    is answered with the error's status, or, where docker has begun its answer by then (`tells_refusals`),
    with a 200 and an error line.
    """

    def __init__(
        self,
        stack: AsyncExitStack,
        peer: ByteStream,
        feeding: Feeding | None = feed,
        translate: Callable[[bytes], bytes] | None = None,
        *,
        is_lines: bool = True,
        tells_refusals: bool = False,
    ) -> None:
        super().__init__(None, 200)
        self._stack = stack
        self._peer = peer
        self._feeding = feeding
        self._translate = translate
        self._is_lines = is_lines
        self._tells_refusals = tells_refusals
        kind = "application/json" if is_lines else "application/x-tar"
        self._head = [(b"content-type", kind.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve until the peer's end; what it refuses before its first word is an answer of its own."""
        is_whole, refusal = True, None
        async with self._stack:
            try:
                async with TaskGroup() as tasks:
                    feeding = tasks.create_task(self._feed(receive))
                    refusal = await self._answer(send)
                    feeding.cancel()
            except* (_GoneError, ClientDisconnect):
                is_whole = False
        if refusal is not None:
            await problem(status_of(refusal), refusal.message)(scope, receive, send)
        elif is_whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _feed(self, receive: Receive) -> None:
        if self._feeding is not None:
            try:
                await self._feeding(self._peer, receive)
            except LabfleetError as exc:
                await frames.end(self._peer, exc)
        await _until_gone(receive)

    async def _answer(self, send: Send) -> LabfleetError | None:
        """Pass on what the peer says; return why it said nothing."""
        is_begun = False
        try:
            while data := await frames.receive(self._peer):
                is_begun = await self._begin(send, is_begun=is_begun)
                said = self._translate(data) if self._translate is not None else data
                await send({"type": "http.response.body", "body": said, "more_body": True})
        except LabfleetError as exc:
            if not is_begun and not self._tells_refusals:
                return exc
            is_begun = await self._begin(send, is_begun=is_begun)
            if not self._is_lines:
                raise
            await send({"type": "http.response.body", "body": error_line(exc), "more_body": True})
        await self._begin(send, is_begun=is_begun)
        return None

    async def _begin(self, send: Send, *, is_begun: bool) -> bool:
        if not is_begun:
            await send({"type": "http.response.start", "status": 200, "headers": self._head})
        return True


async def last_line(peer: ByteStream) -> dict[str, Any]:
    """Read a peer's answer whole and parse its last line. Raises LabfleetError."""
    said = b""
    while data := await frames.receive(peer):
        said = (said + data)[-(1 << 20) :]
    lines = said.strip().splitlines()
    if not lines:
        raise UnavailableError("the image store ended without an answer")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
