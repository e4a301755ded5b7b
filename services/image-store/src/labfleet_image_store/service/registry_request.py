"""One request to the registry: what it asks, its body, its answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from labfleet_image_store.adapters.sendfile import SendFile
from labfleet_image_store.service.door import Visitor
from labfleet_proto.errors import (
    ConflictError,
    DigestMismatchError,
    DiskFullError,
    InvalidRequestError,
    LabfleetError,
    NotFoundError,
    RateLimitedError,
)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class RegistryError(Exception):
    """An error in the specification's own terms."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Request:
    """One HTTP request."""

    method: str
    headers: dict[str, str]
    query: dict[str, list[str]]
    part: dict[str, str]
    """Of the path: `name` as the client has it."""
    visitor: Visitor | None
    receive: Receive
    send: Send
    send_file: SendFile
    status: int = 0
    _more: bool = True
    sent: dict[str, str] = field(default_factory=dict)

    @property
    def own(self) -> str:
        """The repository to write to."""
        return self.known.own(self.part["name"])

    def readable(self, name: str | None = None) -> tuple[str, ...]:
        """The repositories to read from, best first; `name` is another one than the path's."""
        return self.known.readable(name or self.part["name"])

    @property
    def known(self) -> Visitor:
        """Who was let in."""
        if self.visitor is None:
            raise RuntimeError("nobody was let in")
        return self.visitor

    def asked(self, name: str) -> str | None:
        """First value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else None

    async def chunks(self) -> Any:
        """Yield the body as it comes. Raises RegistryError when the client goes away."""
        while self._more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise RegistryError(400, "BLOB_UPLOAD_INVALID", "the client went away")
            self._more = bool(message.get("more_body"))
            if message.get("body"):
                yield message["body"]

    async def body(self, limit: int) -> bytes:
        """Read a small body. Raises RegistryError beyond `limit`."""
        got = bytearray()
        async for chunk in self.chunks():
            got += chunk
            if len(got) > limit:
                raise RegistryError(413, "MANIFEST_INVALID", f"body is larger than {limit} bytes")
        return bytes(got)

    async def drain(self, limit_s: float) -> None:
        """Read and forget the rest of the body: a client that still sends hears a reset, no answer."""
        with contextlib.suppress(TimeoutError, RegistryError):
            async with asyncio.timeout(limit_s):
                async for _ in self.chunks():
                    pass

    async def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        """Answer with a whole body."""
        await self.head(status, {"Content-Length": str(len(body)), **headers})
        await self.send({"type": "http.response.body", "body": body})

    async def head(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers."""
        self.status = status
        every = {"Docker-Distribution-API-Version": "registry/2.0", **headers}
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(k.lower().encode(), v.encode()) for k, v in every.items()],
            }
        )


def translated(kind: str, error: LabfleetError) -> RegistryError:
    """Our errors in the specification's codes."""
    unknown = {"tags": "NAME_UNKNOWN", "upload": "BLOB_UPLOAD_UNKNOWN", "blob": "BLOB_UNKNOWN"}
    match error:
        case NotFoundError():
            return RegistryError(404, unknown.get(kind, "MANIFEST_UNKNOWN"), error.message)
        case DigestMismatchError():
            return RegistryError(400, "DIGEST_INVALID", error.message)
        case ConflictError():
            return RegistryError(416, "BLOB_UPLOAD_INVALID", error.message)
        case InvalidRequestError():
            code = "MANIFEST_INVALID" if kind == "manifest" else "BLOB_UPLOAD_INVALID"
            return RegistryError(400, code, error.message)
        case DiskFullError():
            return RegistryError(507, "UNKNOWN", error.message)
        case _:
            is_limited = isinstance(error, RateLimitedError)
            status, code = (429, "TOOMANYREQUESTS") if is_limited else (503, "UNKNOWN")
            return RegistryError(status, code, error.message)
