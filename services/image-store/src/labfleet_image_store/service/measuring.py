"""Reads each new layer once, so that the unpacked sizes of images are known."""

import asyncio

from labfleet_chassis.logs import Log
from labfleet_image_store.adapters.layers import Layers
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_proto.errors import LabfleetError
from labfleet_proto.ids import Digest

_PAUSE_S = 1.0


class Measurer:
    """One layer after the other; what cannot be read is left at its stored size."""

    def __init__(self, catalogue: Catalogue, layers: Layers, log: Log) -> None:
        self._catalogue = catalogue
        self._layers = layers
        self._log = log
        self._done: set[str] = set()
        """Manifests whose layers were all looked at."""

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            mirror = self._catalogue.manifests
            position = mirror.revision
            for record in mirror.values():
                if record.digest not in self._done:
                    self._done.add(record.digest)
                    await self._measure(record.digest)
            if mirror.revision == position:
                await mirror.changed()
            await asyncio.sleep(_PAUSE_S)  # who pushes is served first

    async def _measure(self, digest: str) -> None:
        try:
            manifest = self._catalogue.manifest(digest)
        except LabfleetError:
            return  # gone meanwhile
        if manifest.config is None or "image" not in manifest.config.media_type:
            return
        for layer in manifest.layers:
            if self._layers.known(layer.digest) is None:
                try:
                    await asyncio.to_thread(self._layers.fact, Digest(layer.digest))
                except LabfleetError as exc:
                    self._log.info("layer.unread", digest=layer.digest, error=exc.message)
