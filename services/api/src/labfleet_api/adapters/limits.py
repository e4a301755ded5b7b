"""The HTTP protocol with limits on a request's head: its size, and the time it may take to come."""

import asyncio
from typing import Any

from labfleet_api.adapters.hijack import HijackProtocol

_HEAD_LIMIT_S = 20.0
_MOST_HEAD_BYTES = 64 << 10
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class BoundedProtocol(HijackProtocol):
    """Drops clients that connect and say nothing, say it too slowly, or say too much."""

    _awaiting: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Await the first request."""
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        """Await the rest of the head."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._end_waiting()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the wire."""
        super().data_received(data)
        if self._awaiting is None:
            return
        self._head_bytes += len(data)
        if self._head_bytes > _MOST_HEAD_BYTES:
            self._end_waiting()
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._awaiting is None:
            self._head_bytes = 0
            loop: Any = self.loop
            self._awaiting = loop.call_later(_HEAD_LIMIT_S, self.transport.abort)

    def _end_waiting(self) -> None:
        if self._awaiting is not None:
            self._awaiting.cancel()
            self._awaiting = None
