"""Bytes of uploads: received, held to the tenant's quota, published."""

import asyncio

from labfleet_image_store import metrics
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.uploads import Upload
from labfleet_image_store.core.quotas import QuotaExceededError
from labfleet_image_store.service.quotas import Quotas
from labfleet_image_store.service.registry_request import Request


class Receiver:
    """Uploads of the registry's clients. What is refused is not kept."""

    def __init__(self, files: BlobFiles, quotas: Quotas) -> None:
        self._files = files
        self._quotas = quotas

    def begin(self, repository: str, digest: str | None) -> Upload:
        """Open a session, for a known blob if there is a digest. Raises QuotaExceededError, DiskFullError."""
        if digest is None or not self._quotas.has(repository, digest):
            self._quotas.begin(repository)
        return self._files.uploads.begin(repository)

    async def mount(self, repository: str, digest: str) -> None:
        """Let a repository refer to a blob that is here. Raises QuotaExceededError."""
        self._quotas.check(repository, {digest: None})
        await asyncio.to_thread(self._files.link, repository, digest)
        self._quotas.received(repository, digest)

    async def receive(self, request: Request, upload: Upload) -> None:
        """Append the body. Raises QuotaExceededError, DiskFullError; then the session is gone.

        A blob that the tenant has already takes no room.
        """
        digest = request.asked("digest")
        is_free = digest is not None and self._quotas.has(upload.repository, digest)
        try:
            if not is_free:
                self._quotas.announce(upload, upload.size + request.announced_bytes)
            async for chunk in request.chunks():
                metrics.RECEIVED.inc(len(chunk))
                if not is_free:
                    self._quotas.announce(upload, upload.size + len(chunk))
                self._files.uploads.append(upload, chunk)
        except QuotaExceededError:
            self._files.uploads.cancel(upload)
            raise
        finally:
            self._quotas.settle(upload)

    async def finish(self, upload: Upload, digest: str) -> None:
        """Publish. Raises DigestMismatchError, DiskFullError; then nothing is kept."""
        await asyncio.to_thread(self._files.finish, upload, digest)
        self._quotas.received(upload.repository, digest)
