"""Images that the store makes itself, put where their names say."""

import asyncio
import json
from collections.abc import Sequence

from labfleet_chassis.caller import caller_tenant
from labfleet_image_store.adapters.layers import LayerFact
from labfleet_image_store.core import archives, new_images
from labfleet_image_store.core.references import Reference
from labfleet_image_store.service.library import Library
from labfleet_image_store.service.quotas import Quotas
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest
from labfleet_proto.images import own_repository, unnamed_repository


class Shelf:
    """Puts new images into the catalogue for the caller's tenant. Doing it again is nothing."""

    def __init__(self, library: Library) -> None:
        self._library = library

    @property
    def quotas(self) -> Quotas:
        """What says how much may be stored."""
        return self._library.catalogue.quotas

    @property
    def unnamed(self) -> str:
        """The caller's repository of images without a name."""
        return unnamed_repository(caller_tenant())

    def name(self, text: str) -> Reference:
        """Parse a name to give. Raises InvalidRequestError."""
        return self._library.parse(text)

    async def put(
        self, config: bytes, layers: Sequence[LayerFact], names: Sequence[Reference]
    ) -> Digest:
        """Add an image and give it its names; return its id. Raises InvalidRequestError."""
        image_id = archives.digest_of(config)
        check_config(config, layers)
        source: str = image_id
        if not self._is_whole(image_id):
            manifest = new_images.manifest_of(
                config, image_id, [(layer.digest, layer.size_bytes) for layer in layers]
            )
            tag = f"{names[0].tag}" if names else archives.digest_of(manifest)
            home = own_repository(caller_tenant(), names[0].repository) if names else self.unnamed
            await asyncio.to_thread(self._parts, home, config, layers)
            await self._library.catalogue.put_manifest(home, tag, manifest, "")
            source = names[0].familiar if names else image_id
        for name in names:
            await self._library.add_name(source, name.familiar)
        return image_id

    def _parts(self, home: str, config: bytes, layers: Sequence[LayerFact]) -> None:
        """Let a repository have what an image's manifest names."""
        files = self._library.catalogue.files
        files.put(home, config)
        for layer in layers:
            files.link(home, layer.digest)

    def _is_whole(self, image_id: str) -> bool:
        """Whether the caller sees the image, and none of its blobs is damaged."""
        files = self._library.catalogue.files
        return any(
            all(files.has(record.repository, blob) for blob in self._library.blobs(record))
            for record in self._library.images().get(image_id, ())
        )


def check_config(config: bytes, layers: Sequence[LayerFact]) -> None:
    """Compare a config with the layers' contents. Raises InvalidRequestError."""
    try:
        diff_ids = list(json.loads(config)["rootfs"]["diff_ids"] or ())  # Go writes null
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise InvalidRequestError(f"archive: an image's config is invalid: {exc!r}") from exc
    if len(diff_ids) != len(layers):
        raise InvalidRequestError(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(layers)}"
        )
    for number, (wanted, layer) in enumerate(zip(diff_ids, layers, strict=True)):
        if wanted != layer.diff_id:
            raise InvalidRequestError(
                f'invalid diffID for layer {number}: expected "{wanted}", got "{layer.diff_id}"'
            )
