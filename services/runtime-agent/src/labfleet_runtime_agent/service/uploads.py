"""Layers sent to other hosts: a bounded number at once."""

from functools import partial

from labfleet_chassis import pieces
from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_chassis.lent_socket import in_thread
from labfleet_proto.errors import InvalidRequestError, NotFoundError, UnavailableError
from labfleet_proto.layers import ReadBlob
from labfleet_runtime_agent.adapters.blob_cache import BlobCache
from labfleet_runtime_agent.adapters.layer_copies import LayerCopies
from labfleet_runtime_agent.metrics import LAYER_SERVED, LAYER_UPLOADS

_MOST = 64 << 20
"""Bytes that a thread sends before the loop looks again."""
_IDLE_S = 0.2
"""Less than any limit of silence: whoever waits is told so often that there will be more."""


class Uploads:
    """Serves `ReadBlob`."""

    def __init__(self, blobs: BlobCache, copies: LayerCopies, most: int) -> None:
        self._blobs = blobs
        self._copies = copies
        self._most = most
        self._now = 0

    async def serve(self, request: ReadBlob, stream: ByteStream, accept: Accept) -> None:
        """Send a blob as far as it is here, and the rest as it comes.

        Raises NotFoundError, InvalidRequestError, UnavailableError when its fetching fails here.
        """
        if self._now >= self._most:
            await accept({"is_busy": True})
            return
        size = self._blobs.size_of(request.digest)
        if request.digest not in self._blobs.whole():
            claim = self._copies.claim_of(request.digest)
            if not 0 < claim < request.claim:
                raise UnavailableError(f"layer {request.digest}: this host began later")
        if not 0 <= request.first < size:
            raise InvalidRequestError(f"layer {request.digest}: no byte {request.first} of {size}")
        self._now += 1
        try:
            with LAYER_UPLOADS.track_inprogress():
                await self._send(request, stream, accept)
        finally:
            self._now -= 1

    async def _send(self, request: ReadBlob, stream: ByteStream, accept: Accept) -> None:
        blob = self._blobs.served(request.digest)
        try:
            file = blob.open()
        except FileNotFoundError as exc:
            raise NotFoundError(f"layer {request.digest} is not kept here") from exc
        with file:
            await accept({"size": blob.size})
            async with stream.lend() as link:
                at = request.first
                while at < blob.size:
                    count = min(blob.has - at, _MOST)
                    if count <= 0:
                        await blob.wait(at, _IDLE_S)
                        if blob.has <= at:
                            await pieces.send(stream, b"")
                        continue
                    send = partial(pieces.send_file, link, file.fileno(), at, count)
                    await in_thread(send, link.shut)
                    LAYER_SERVED.inc(count)
                    at += count
