"""What this host says of its layers in the fleet's memory, and what the others say."""

import asyncio
from collections.abc import Callable

from labfleet_chassis.logs import Log
from labfleet_chassis.store import Bucket
from labfleet_proto.buckets import layer_copy_key
from labfleet_proto.errors import UnavailableError
from labfleet_proto.ids import Digest, HostId
from labfleet_proto.layers import BlobState, LayerCopy
from labfleet_runtime_agent.core.layer_sources import Claim

_AGAIN_S = 600.0
"""All is compared anew: a store that was killed may have brought back what was taken away."""
_RETRY_S = 1.0


class LayerCopies:
    """Keeps the host's keys of `layer_copies` equal to what is there; it is their only writer."""

    def __init__(self, bucket: Bucket[LayerCopy], host: HostId, log: Log) -> None:
        self._bucket = bucket
        self.host = host
        self._log = log
        self._written: dict[Digest, LayerCopy] = {}
        self._claims: dict[Digest, int] = {}
        self._changed: set[Digest] = set()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self.truth: Callable[[Digest], LayerCopy | None] = lambda _digest: None
        """What is there of a layer now; set by whoever knows, as is the next."""
        self.there: Callable[[], set[Digest]] = set
        """All layers of which something is there."""

    def changed(self, digest: Digest) -> None:
        """What is there of a layer has changed: it is written down soon."""
        self._claims.pop(digest, None)
        self._changed.add(digest)
        self._wake.set()

    async def claim(self, digest: Digest) -> list[Claim]:
        """Write down that this host begins to fetch a layer; return what all said before, and itself.

        Safe to repeat: a later claim stands behind those of the hosts that began meanwhile.
        Raises UnavailableError.
        """
        copy = LayerCopy(host=self.host, digest=digest, blob=BlobState.PARTIAL)
        async with self._writing:
            revision = await self._bucket.put(layer_copy_key(digest, self.host), copy)
            self._written[digest] = copy
        self._claims[digest] = revision
        return await self.claims(digest)

    async def claims(self, digest: Digest) -> list[Claim]:
        """What all hosts have said of a layer. Raises UnavailableError."""
        pattern = layer_copy_key(digest, HostId("*"))
        entries = await self._bucket.entries(pattern)
        return [Claim(entry.value, entry.revision) for entry in entries]

    def claim_of(self, digest: Digest) -> int:
        """Revision of the claim under which this host fetches a layer now; 0 if there is none yet."""
        return self._claims.get(digest, 0)

    async def keep(self) -> None:
        """Write for ever; wrap in `supervise`. Raises UnavailableError."""
        while True:
            await self._compare_all()
            loop = asyncio.get_running_loop()
            end_s = loop.time() + _AGAIN_S
            while loop.time() < end_s:
                try:
                    async with asyncio.timeout_at(end_s):
                        await self._wake.wait()
                except TimeoutError:
                    break
                self._wake.clear()
                await self._write_changed()

    async def _compare_all(self) -> None:
        entries = await self._bucket.entries(f"*.{self.host}")
        self._written = {entry.value.digest: entry.value for entry in entries}
        self._changed |= self._written.keys() | self.there()
        await self._write_changed()

    async def _write_changed(self) -> None:
        while self._changed:
            digest = self._changed.pop()
            try:
                async with self._writing:
                    await self._write(digest)
            except UnavailableError:
                self.changed(digest)
                await asyncio.sleep(_RETRY_S)
                raise

    async def _write(self, digest: Digest) -> None:
        copy, key = self.truth(digest), layer_copy_key(digest, self.host)
        if copy == self._written.get(digest):
            return
        if copy is None:
            await self._bucket.delete(key)
            self._written.pop(digest, None)
        else:
            await self._bucket.put(key, copy)
            self._written[digest] = copy
