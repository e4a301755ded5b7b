"""`docker save`: images of the store as one tar."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, cast

from labfleet_image_store.core import archives, naming
from labfleet_image_store.core.archives import SavedImage
from labfleet_image_store.service.library import Library
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest
from labfleet_proto.images import ImageDetail

_MOST_CONFIG_BYTES = 900 << 10
_BLOCK = 1 << 18


@dataclass
class Chosen:
    """An image to save, and under which names."""

    detail: ImageDetail
    names: list[str] = field(default_factory=list)


def choose(library: Library, wanted: Sequence[str]) -> list[Chosen]:
    """Find what names and ids mean. Raises NotFoundError, ConflictError, InvalidRequestError."""
    found: dict[Digest, Chosen] = {}
    for text in wanted:
        for detail, name in _meant(library, text):
            chosen = found.setdefault(detail.pin.image_id, Chosen(detail))
            if name and name not in chosen.names:
                chosen.names.append(name)
    return list(found.values())


def _meant(library: Library, text: str) -> list[tuple[ImageDetail, str]]:
    is_bare = ":" not in text.rpartition("/")[2] and "@" not in text
    if is_bare:  # docker: all tags of the repository
        names = library.names_of_repository(text)
        if names:
            return [(library.detail(name), name) for name in names]
    _, _, reference = library.find(text)
    detail = library.detail(text)
    name = reference.familiar if reference is not None and reference.tag is not None else ""
    return [(detail, name)]


class Saver:
    """Writes tars in a thread."""

    def __init__(self, library: Library) -> None:
        self._files = library.catalogue.files
        self._layers = library.layers

    def write(self, images: Sequence[Chosen], target: IO[bytes]) -> None:
        """Write the whole tar. Blocks. Raises LabfleetError, ConnectionError."""
        saved = [self._saved(each) for each in images]
        small = archives.small_members(saved)
        with tarfile.open(
            fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK
        ) as tar:
            for folder in ("blobs", "blobs/sha256"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            done: set[str] = set()
            made_s = {_config_member(each): _made_s(each) for each in images}
            for each in images:
                for layer in each.detail.pin.layers:
                    if layer.diff_id not in done:
                        done.add(layer.diff_id)
                        self._add_layer(tar, layer.digest)
            for name in sorted(small):
                if name.startswith("blobs/") and name.rpartition("/")[2] in done:
                    continue
                entry = tarfile.TarInfo(name)
                entry.mtime = made_s.get(name, 0)
                entry.size, entry.mode = len(small[name]), 0o644
                tar.addfile(entry, io.BytesIO(small[name]))

    def _saved(self, chosen: Chosen) -> SavedImage:
        pin = chosen.detail.pin
        layers = []
        for layer in pin.layers:
            fact = self._layers.fact(layer.digest)
            if fact.diff_id != layer.diff_id:
                raise InvalidRequestError(
                    f"layer {layer.digest} is not what the config of {pin.image_id} says"
                )
            layers.append((fact.diff_id, fact.unpacked_bytes))
        config = self._files.read(pin.image_id, _MOST_CONFIG_BYTES)
        return SavedImage(pin.image_id, config, tuple(layers), tuple(chosen.names))

    def _add_layer(self, tar: tarfile.TarFile, digest: Digest) -> None:
        fact = self._layers.fact(digest)
        entry = tarfile.TarInfo(archives.blob_member(fact.diff_id))
        entry.size, entry.mode = fact.unpacked_bytes, 0o644
        with self._layers.open(digest) as source:
            checked = _Hashing(source)
            tar.addfile(entry, cast("IO[bytes]", checked))
        if checked.digest != fact.diff_id:  # found by this reader, before the scrubber came by
            raise InvalidRequestError(f"layer {digest} is damaged")


def _config_member(image: Chosen) -> str:
    return archives.blob_member(image.detail.pin.image_id)


def _made_s(image: Chosen) -> int:
    """When an image was made, as docker dates its config in the archive."""
    return naming.seconds(str(image.detail.config.get("created") or ""))


class _Hashing:
    """A reader that remembers what it gave."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"
