"""The image store as a source of layers: its bytes go from the socket to the file in a thread.

The standard library's blocking client: an asynchronous one costs seven times the processor time for each
byte, in the loop that all containers of the host wait for.
"""

import base64
import contextlib
import http.client
import select
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from labfleet_chassis import lent_socket
from labfleet_chassis.lent_socket import in_thread
from labfleet_proto.errors import NotFoundError, UnavailableError
from labfleet_proto.images import LayerRef
from labfleet_proto.tenants import FLEET_USER

_CONNECT_S = 5.0
_SILENCE_S = 30.0
_BUFFER = 1 << 18


class StoreBlobs:
    """Opens layers of the image store."""

    def __init__(self, registry_url: str, fleet_secret: str) -> None:
        self._url = urlsplit(registry_url)
        word = base64.b64encode(f"{FLEET_USER}:{fleet_secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {word}"}

    @contextlib.asynccontextmanager
    async def opened(
        self, repository: str, layer: LayerRef, first: int
    ) -> AsyncIterator["StoreSource"]:
        """A layer from a byte on. Raises NotFoundError, UnavailableError."""
        kind = (
            http.client.HTTPSConnection
            if self._url.scheme == "https"
            else http.client.HTTPConnection
        )
        link = kind(self._url.hostname or "", self._url.port, timeout=_CONNECT_S)
        source = StoreSource(link, layer, first)
        path = f"{self._url.path.rstrip('/')}/v2/{repository}/blobs/{layer.digest}"
        headers = self._headers | ({"Range": f"bytes={first}-"} if first else {})
        try:
            await in_thread(lambda: source.ask(path, headers), source.abort)
            yield source
        finally:
            link.close()


class StoreSource:
    """The answer to one GET: a source of a GrowingBlob."""

    def __init__(self, link: http.client.HTTPConnection, layer: LayerRef, first: int) -> None:
        self._link = link
        self._layer = layer
        self._first = first
        self._left = layer.size_bytes - first
        self._socket: socket.socket | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._what = f"fetch layer {layer.digest}"

    def ask(self, path: str, headers: dict[str, str]) -> None:
        """Send the request and read the answer's head. Raises NotFoundError, UnavailableError."""
        try:
            self._link.connect()
            self._socket = self._link.sock
            self._socket.settimeout(_SILENCE_S)
            self._link.request("GET", path, headers=headers)
            answer = self._answer = self._link.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            raise UnavailableError(f"{self._what}: {exc!r}") from exc
        if answer.status == http.client.NOT_FOUND:
            raise NotFoundError(f"{self._what}: {path} is not in the store")
        if answer.status != (http.client.PARTIAL_CONTENT if self._first else http.client.OK):
            raise UnavailableError(f"{self._what}: the store answers {answer.status}")
        if answer.length != self._left:
            raise UnavailableError(f"{self._what}: {answer.length} bytes come, not {self._left}")

    def is_ready(self, limit_s: float) -> bool:
        """Wait until something has come, or the end."""
        if not self._left or self._socket is None:
            return True
        return lent_socket.wait_for(self._socket, select.POLLIN, limit_s)

    def take(self) -> memoryview:
        """Return the next bytes as they come; none at the layer's end. Raises UnavailableError."""
        if not self._left or self._answer is None:
            return memoryview(b"")
        try:
            data = self._answer.read1(_BUFFER)
        except (OSError, ValueError, http.client.HTTPException) as exc:
            raise UnavailableError(f"{self._what}: {exc!r}") from exc
        if not data:
            raise UnavailableError(f"{self._what}: it broke off with {self._left} bytes left")
        self._left -= len(data)
        return memoryview(data)

    def abort(self) -> None:
        """Let a `take` that waits fail at once."""
        if self._socket is not None:
            lent_socket.shut(self._socket)
