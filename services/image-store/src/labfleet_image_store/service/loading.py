"""`docker load`: a tar of images becomes images of the store."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from labfleet_image_store.adapters.layers import LayerFact, Layers
from labfleet_image_store.adapters.tar_file import TarFile, spooled
from labfleet_image_store.core import archives, manifests
from labfleet_image_store.service.quotas import Room
from labfleet_image_store.service.shelf import Shelf, check_config
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest

_MOST_CONFIG_BYTES = 900 << 10
_ARCHITECTURE = "amd64"
_CHUNK = 1 << 20

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Prepared:
    """An image whose layers are in the store."""

    config: bytes
    layers: tuple[LayerFact, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where layers are kept until their images have names, and how much fits there."""

    repository: str
    room: Room


@dataclass(frozen=True)
class Loader:
    """Reads tars in a thread."""

    directory: Path
    """For what is kept aside."""
    layers: Layers
    shelf: Shelf

    async def load(self, source: IO[bytes], tell: Tell) -> list[tuple[Digest, tuple[str, ...]]]:
        """Store all images of a tar; return ids and familiar names. Raises LabfleetError."""
        unnamed = self.shelf.unnamed
        place = Place(unnamed, self.shelf.quotas.room(unnamed))
        prepared = await asyncio.to_thread(self._prepare, source, place, tell)
        done = []
        for image in prepared:
            names = [self.shelf.name(name) for name in image.names]
            image_id = await self.shelf.put(image.config, image.layers, names)
            done.append((image_id, tuple(name.familiar for name in names)))
        return done

    def _prepare(self, source: IO[bytes], place: Place, tell: Tell) -> list[Prepared]:
        with spooled(self.directory, source) as tar:
            if archives.DOCKER_MANIFEST_FILE in tar:
                table = tar.read(archives.DOCKER_MANIFEST_FILE, manifests.MOST_BYTES)
                return [
                    self._docker_image(tar, entry, place, tell)
                    for entry in archives.docker_images(table)
                ]
            if archives.OCI_INDEX_FILE in tar:
                index = _document(tar.read(archives.OCI_INDEX_FILE, manifests.MOST_BYTES))
                return [
                    self._laid_out(tar, entry, place, tell)
                    for entry in archives.laid_out_images(index)
                ]
        raise InvalidRequestError(
            f"open {archives.DOCKER_MANIFEST_FILE}: no such file or directory: "
            "the archive is neither docker's nor an OCI layout"
        )

    def _docker_image(
        self, tar: TarFile, entry: archives.ArchivedImage, place: Place, tell: Tell
    ) -> Prepared:
        config = tar.read(entry.config, _MOST_CONFIG_BYTES)
        facts = self._layers(tar, entry.layers, place, tell)
        check_config(config, facts)
        return Prepared(config, facts, entry.tags)

    def _layers(
        self, tar: TarFile, members: tuple[str, ...], place: Place, tell: Tell
    ) -> tuple[LayerFact, ...]:
        if len(members) > manifests.MOST_LAYERS:
            raise InvalidRequestError(
                f"archive: {len(members)} layers; at most {manifests.MOST_LAYERS} are taken"
            )
        return tuple(self._layer(tar, member, place, tell) for member in members)

    def _layer(self, tar: TarFile, member: str, place: Place, tell: Tell) -> LayerFact:
        with tar.open(member) as file:
            diff_id, size = self.layers.measure(file)
        short = diff_id[7:19]
        detail = {"current": size, "total": size}
        known = self.layers.of_diff(diff_id)
        if known is not None:
            self.layers.use(place.repository, known)
            return known
        with tar.open(member) as file:
            made = self.layers.make(
                place.repository, self.layers.opened(file), check_size=place.room.check
            )
        place.room.take(made.size_bytes)
        self.shelf.quotas.received(place.repository, made.digest)
        tell({"status": "Loading layer", "progressDetail": detail, "id": short})
        return made

    def _laid_out(
        self, tar: TarFile, entry: archives.LaidOut, place: Place, tell: Tell
    ) -> Prepared:
        body = _blob(tar, entry.digest)
        manifest = manifests.parse(body, "")
        if manifest.media_type in manifests.INDEX_TYPES:
            child = manifests.for_platform(manifest, _ARCHITECTURE)
            if child is None:
                raise InvalidRequestError(f"archive: no image for linux/{_ARCHITECTURE} in it")
            manifest = manifests.parse(_blob(tar, child), "")
        if manifest.config is None:
            raise InvalidRequestError("archive: a manifest without an image's config")
        members = tuple(archives.blob_member(layer.digest) for layer in manifest.layers)
        config = _blob(tar, manifest.config.digest)
        facts = self._layers(tar, members, place, tell)
        check_config(config, facts)
        # A bare tag, as skopeo writes it, names no repository.
        named = entry.name if "/" in entry.name or ":" in entry.name else ""
        return Prepared(config, facts, (named,) if named else ())


def _blob(tar: TarFile, digest: str) -> bytes:
    data = tar.read(archives.blob_member(digest), _MOST_CONFIG_BYTES)
    if archives.digest_of(data) != digest:
        raise InvalidRequestError(f"archive: blob {digest} has other bytes")
    return data


def _document(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequestError(f"archive: {archives.OCI_INDEX_FILE} is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise InvalidRequestError(f"archive: {archives.OCI_INDEX_FILE} is no object")
    return found
