"""One request to the registry: what it asks, its body, its answer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from labfleet_image_store.adapters.sendfile import SendFile
from labfleet_image_store.core.registry_scopes import of_repository
from labfleet_image_store.service.door import Visitor
from labfleet_proto.errors import (
    ConflictError,
    DigestMismatchError,
    DiskFullError,
    ForbiddenError,
    InvalidRequestError,
    LabfleetError,
    NotFoundError,
    RateLimitedError,
)
from labfleet_proto.registry_access import Action

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class RegistryError(Exception):
    """An error in the specification's own terms."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


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
    scheme: str = "http"
    server: str = "localhost"
    """Where it listens: for a request that does not say to which host it is."""
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

    def mountable(self, name: str) -> tuple[str, ...]:
        """The repositories from which a blob may be taken over: those that whoever asks may pull."""
        need = of_repository(name, Action.PULL)
        may = self.known.has(need) and self.known.covers(need)
        return self.readable(name) if may else ()

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

    @property
    def announced_bytes(self) -> int:
        """Length of the body as the client says it; 0 if it does not."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() else 0

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
    status, code = _status_and_code(kind, error)
    return RegistryError(status, code, error.message)


def _status_and_code(kind: str, error: LabfleetError) -> tuple[int, str]:
    match error:
        case NotFoundError():
            unknown = {"tags": "NAME", "upload": "BLOB_UPLOAD", "blob": "BLOB"}
            found = 404, f"{unknown.get(kind, 'MANIFEST')}_UNKNOWN"
        case DigestMismatchError():
            found = 400, "DIGEST_INVALID"
        case ConflictError():
            found = 416, "BLOB_UPLOAD_INVALID"
        case InvalidRequestError():
            found = 400, "MANIFEST_INVALID" if kind == "manifest" else "BLOB_UPLOAD_INVALID"
        case ForbiddenError():
            found = 403, "DENIED"
        case DiskFullError():
            found = 507, "UNKNOWN"
        case RateLimitedError():
            found = 429, "TOOMANYREQUESTS"
        case _:
            found = 503, "UNKNOWN"
    return found
