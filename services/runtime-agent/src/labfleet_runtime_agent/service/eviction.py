"""Room on the host's disk: what can be fetched again goes, the least used first.

What is in use is asked and a layer taken away in one step of the event loop, so that no container can begin
in between. Its files are deleted afterwards.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from labfleet_chassis.logs import Log
from labfleet_runtime_agent.adapters import kernel
from labfleet_runtime_agent.adapters.layer_store import LayerStore
from labfleet_runtime_agent.core.eviction import Disk, Marks, evictable, wanted_free_bytes
from labfleet_runtime_agent.metrics import BLOB_BYTES, DISK_USED, EVICTED, LAYERS
from labfleet_runtime_agent.settings import Settings


def disk_of(path: Path) -> Disk:
    """The file system of a path; what is free for everybody counts as free."""
    found = shutil.disk_usage(path)
    return Disk(found.total, found.free)


class Eviction:
    """Watches the disk below the host's state."""

    def __init__(
        self,
        layers: LayerStore,
        in_use: Callable[[], set[str]],
        settings: Settings,
        log: Log,
        disk: Callable[[Path], Disk] = disk_of,
    ) -> None:
        self._layers = layers
        self._in_use = in_use
        self._marks = Marks(
            settings.layers_high_percent,
            min(settings.layers_low_percent, settings.layers_high_percent),
        )
        self._every_s = settings.layers_check_s
        self._path = settings.state_dir
        self._log = log
        self._disk = disk
        self._evicting = asyncio.Lock()
        layers.make_room = self.make_room

    async def keep(self) -> None:
        """Look at the disk for ever; wrap in `supervise`."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Write down what is used; above the high mark, evict down to the low one."""
        self._layers.note_use(self._in_use())
        wanted = wanted_free_bytes(self._disk(self._path), self._marks)
        if wanted:
            await self.make_room(wanted)
        DISK_USED.set(self._disk(self._path).used_share)
        LAYERS.set(len(self._layers.here()))
        BLOB_BYTES.set(self._layers.blobs.used_bytes)

    async def make_room(self, wanted_bytes: int) -> bool:
        """Evict until so many bytes are free; whether they are."""
        async with self._evicting:
            while not self._is_free(wanted_bytes):
                if not await self._evict_one():
                    return False
        return True

    def _is_free(self, wanted_bytes: int) -> bool:
        return self._disk(self._path).free_bytes >= wanted_bytes

    async def _evict_one(self) -> bool:
        """Let the least used thing go; False if everything left is in use."""
        if self._layers.blobs.drop_oldest():
            EVICTED.labels("blob").inc()
            return True
        mounted = await asyncio.to_thread(kernel.mounted_children, self._layers.home)
        self._layers.note_use(set())  # what was started a moment ago is not the least used
        names = evictable(self._layers.cached(), self._in_use() | mounted)
        if not names:
            return False
        gone = self._layers.take_away(names[0])
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        EVICTED.labels("layer").inc()
        self._log.info("layer.evicted", diff_id=f"sha256:{names[0]}")
        return True
