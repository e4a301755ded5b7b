"""Damaged blobs from the hosts that keep layers for one another (`docs/layers.md`)."""

import asyncio
from pathlib import Path

from labfleet_chassis.host_blobs import HostBlobs, HostBusyError
from labfleet_chassis.lent_socket import in_thread
from labfleet_chassis.logs import Log
from labfleet_chassis.store import Bucket
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.partial_blob import PartialBlob
from labfleet_image_store.core import scrubbing
from labfleet_image_store.service.healing import Wanted
from labfleet_proto.buckets import layer_copy_key
from labfleet_proto.errors import DiskFullError, LabfleetError, UnavailableError
from labfleet_proto.ids import Digest, HostId
from labfleet_proto.layers import LayerCopy, ReadBlob

_ASK_LIMIT_S = 5.0
_SETTLE_S = 30.0
_LEAST_BYTES_PER_S = 1 << 20
"""Hosts are near. One that is slower than so is left for the next."""


class HostSource:
    """Reads a layer from one host after the other, each time from its first byte.

    So a digest that is wrong at the end is that host's, and the next one gives all of the blob.
    """

    name = "host"

    def __init__(
        self, files: BlobFiles, copies: Bucket[LayerCopy], blobs: HostBlobs, log: Log
    ) -> None:
        self._files = files
        self._copies = copies
        self._blobs = blobs
        self._log = log
        self._failed: dict[HostId, float] = {}
        """When each host that has failed did so last."""

    async def bring(self, wanted: Wanted) -> bool:
        """Read it from the first host that has it whole. Raises LabfleetError of the last one that failed."""
        if wanted.descriptor is None or not wanted.descriptor.size:
            return False
        failure: LabfleetError | None = None
        for host in await self._hosts(wanted.digest):
            try:
                await self._from(host, wanted, wanted.descriptor.size)
            except HostBusyError as exc:
                failure = UnavailableError(str(exc))
            except LabfleetError as exc:
                failure = exc
            else:
                self._failed.pop(host, None)
                return True
            self._failed[host] = self._blobs.clock.monotonic_s()
            self._log.warning(
                "heal.failover", digest=wanted.digest, host=host, error=failure.message
            )
        if failure is not None:
            raise failure
        return False

    async def _hosts(self, digest: Digest) -> list[HostId]:
        try:
            async with asyncio.timeout(_ASK_LIMIT_S):
                entries = await self._copies.entries(layer_copy_key(digest, HostId("*")))
        except TimeoutError as exc:
            raise UnavailableError(f"which hosts keep {digest} is not to be learned now") from exc
        return scrubbing.hosts_with((entry.value for entry in entries), self._failed)

    async def _from(self, host: HostId, wanted: Wanted, size: int) -> None:
        """Put the blob into the store. Raises HostBusyError, LabfleetError; then nothing is kept."""
        limit_s = _SETTLE_S + size / _LEAST_BYTES_PER_S
        aside = self._files.uploads.aside()
        try:
            async with asyncio.timeout(limit_s):
                await self._receive(host, wanted.digest, size, aside)
            await asyncio.to_thread(self._files.adopt, wanted.repositories[0], aside, wanted.digest)
        except TimeoutError as exc:
            raise UnavailableError(f"host {host} was not done in {limit_s:.0f} s") from exc
        except OSError as exc:
            raise DiskFullError(f"blob {wanted.digest}: {exc.strerror}") from exc
        finally:
            aside.unlink(missing_ok=True)

    async def _receive(self, host: HostId, digest: Digest, size: int, aside: Path) -> None:
        part = await asyncio.to_thread(PartialBlob, aside, digest, size)
        try:
            async with self._blobs.opened(host, ReadBlob(digest=digest), size) as incoming:
                while part.size < size:
                    await in_thread(lambda: part.append(incoming.take()), incoming.abort)
            await asyncio.to_thread(part.finish)
        finally:
            await asyncio.to_thread(part.close)
