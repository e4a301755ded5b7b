"""Bytes of a blob on their way to a client: by the kernel where it can be, and never damaged ones to the end."""

import asyncio
from typing import BinaryIO

from labfleet_image_store import metrics
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.service.registry_request import Request

_CHUNK = 1 << 20
_LAST_BYTES = 4096
"""So much is held back until the rest is on its way: an answer about a blob that was found damaged
meanwhile breaks off, so that no client takes it for whole."""


async def send_blob(files: BlobFiles, request: Request, digest: str, first: int, last: int) -> None:
    """Send bytes as the body of an answer whose head is sent.

    Raises OSError when they are no longer what the digest says; then the connection ends before the body.
    """
    count = last - first + 1
    condemned = files.condemnations(digest)
    with files.path_of(digest).open("rb") as file:
        early = max(count - _LAST_BYTES, 0)
        if early > _CHUNK and await request.send_file(file, first, early):
            metrics.SENT.inc(early)
        else:
            await _send_pieces(request, file, first, early)
        file.seek(first + early)
        rest = await asyncio.to_thread(file.read, count - early)
        if files.condemnations(digest) != condemned:
            raise OSError(f"blob {digest} was found damaged while it was read")
        if len(rest) != count - early:
            raise OSError("the blob is shorter than it was")
    metrics.SENT.inc(len(rest))
    await request.send({"type": "http.response.body", "body": rest})


async def _send_pieces(request: Request, file: BinaryIO, first: int, count: int) -> None:
    file.seek(first)
    while count > 0:
        data = await asyncio.to_thread(file.read, min(_CHUNK, count))
        if not data:
            raise OSError("the blob is shorter than it was")
        count -= len(data)
        metrics.SENT.inc(len(data))
        await request.send({"type": "http.response.body", "body": data, "more_body": True})
