"""Layers sent to other hosts: a bounded number at once."""

import contextlib

from labfleet_chassis import pieces
from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_proto.errors import InvalidRequestError, UnavailableError
from labfleet_proto.layers import ReadBlob
from labfleet_runtime_agent.adapters.blob_cache import BlobCache
from labfleet_runtime_agent.adapters.layer_copies import LayerCopies
from labfleet_runtime_agent.metrics import LAYER_SERVED, LAYER_UPLOADS

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
                await accept({"size": size})
                blob = self._blobs.read(request.digest, request.first, _IDLE_S)
                async with contextlib.aclosing(blob) as parts:  # type: ignore[type-var]
                    async for data in parts:
                        await pieces.send(stream, data)
                        LAYER_SERVED.inc(len(data))
        finally:
            self._now -= 1
