"""Layers: made from a tar, and what is known of stored ones (diff id, unpacked size)."""

import hashlib
import json
import os
import secrets
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.compression import (
    DAMAGE,
    Deflater,
    checked_read,
    inflated,
)
from labfleet_proto.errors import DiskFullError, InvalidRequestError
from labfleet_proto.ids import Digest

_EMPTY_TAR = bytes(1024)
_NO_TAR = "Error processing tar file(exit status 1): archive/tar: invalid tar header"
_CHUNK = 1 << 20
_MOST_BYTES = 64 << 30


@dataclass(frozen=True)
class LayerFact:
    """A stored layer."""

    digest: Digest
    diff_id: Digest
    size_bytes: int
    """Stored."""
    unpacked_bytes: int
    """Of its tar."""


class Layers:
    """The store's layers; facts are kept beside the blobs and can be found out again."""

    def __init__(self, directory: Path, files: BlobFiles) -> None:
        self._files = files
        self._facts = directory / "facts"
        self._aside = directory / "uploads"
        self._facts.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, LayerFact] = {}
        self._by_diff: dict[str, Digest] = {}
        for path in self._facts.glob("*.new"):
            path.unlink()  # half written
        for path in self._facts.glob("*.json"):
            self._recall(path)

    def _recall(self, path: Path) -> None:
        try:
            fact = LayerFact(**json.loads(path.read_text()))
        except (ValueError, TypeError):  # half written before a power loss: found out again
            path.unlink(missing_ok=True)
            return
        self._remember(fact)

    def _remember(self, fact: LayerFact) -> None:
        self._known[fact.digest] = fact
        self._by_diff.setdefault(fact.diff_id, fact.digest)

    def known(self, digest: str) -> LayerFact | None:
        """What is known of a layer without reading it."""
        return self._known.get(digest)

    def of_diff(self, diff_id: str) -> LayerFact | None:
        """A stored layer with this content, if one is known."""
        digest = self._by_diff.get(diff_id)
        if digest is None or not self._files.path_of(digest).exists():
            return None
        return self._known[digest]

    def forget(self, digest: str) -> None:
        """The blob is gone."""
        fact = self._known.pop(digest, None)
        if fact is not None and self._by_diff.get(fact.diff_id) == digest:
            del self._by_diff[fact.diff_id]
        self._fact_file(digest).unlink(missing_ok=True)

    def fact(self, digest: Digest) -> LayerFact:
        """What is known of a layer, reading it if nothing is. Blocks.

        Raises NotFoundError, InvalidRequestError (it is damaged).
        """
        known = self._known.get(digest)
        if known is not None:
            return known
        size = self._files.size(digest)
        diff, unpacked = hashlib.sha256(), 0
        with self._files.path_of(digest).open("rb") as file:
            source = inflated(file)
            while data := checked_read(source, _CHUNK):
                diff.update(data)
                unpacked += len(data)
                if unpacked > _MOST_BYTES:
                    raise InvalidRequestError(f"layer {digest} unpacks to too much")
        fact = LayerFact(digest, Digest(f"sha256:{diff.hexdigest()}"), size, unpacked)
        self._keep(fact)
        return fact

    def _fact_file(self, digest: str) -> Path:
        return self._facts / f"{digest.removeprefix('sha256:')}.json"

    def _keep(self, fact: LayerFact) -> None:
        self._remember(fact)
        path = self._fact_file(fact.digest)
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(fact.__dict__))
        aside.rename(path)

    def open(self, digest: Digest) -> IO[bytes]:
        """Open a layer's tar, decompressed. Raises NotFoundError."""
        self._files.size(digest)
        return inflated(self._files.path_of(digest).open("rb"))

    def opened(self, source: IO[bytes]) -> IO[bytes]:
        """A layer of an archive, decompressed if it is compressed."""
        return inflated(source)

    def measure(self, source: IO[bytes]) -> tuple[Digest, int]:
        """Diff id and size of a layer of an archive. Blocks. Raises InvalidRequestError."""
        diff, size = hashlib.sha256(), 0
        stream = inflated(source)
        while data := checked_read(stream, _CHUNK):
            diff.update(data)
            size += len(data)
            if size > _MOST_BYTES:
                raise InvalidRequestError(f"layer: larger than {_MOST_BYTES} bytes")
        return Digest(f"sha256:{diff.hexdigest()}"), size

    def use(self, repository: str, fact: LayerFact) -> None:
        """Let a repository refer to a layer whose content its owner has shown to have."""
        self._files.link(repository, fact.digest)

    def make(
        self,
        repository: str,
        source: IO[bytes],
        *,
        is_checked: bool = True,
        check_size: Callable[[int], None] = lambda _size: None,
    ) -> LayerFact:
        """Store a layer of the tar that is read from `source`, whole or not at all. Blocks.

        A layer of the same content that is there already is used again. `check_size` is told how large
        the blob is as it grows, and may raise.
        Raises InvalidRequestError (no tar), DiskFullError.
        """
        aside = self._aside / f"layer-{secrets.token_hex(8)}"
        try:
            with aside.open("wb") as target:
                sink = _Sink(target, check_size)
                reader = cast("IO[bytes]", _Tee(source, sink))
                if is_checked:
                    check_tar(reader)
                while reader.read(_CHUNK):
                    pass
                if not sink.unpacked:
                    sink.take(_EMPTY_TAR)
                sink.finish()
                os.fsync(target.fileno())
            diff_id = Digest(f"sha256:{sink.diff.hexdigest()}")
            same = self.of_diff(diff_id)
            if same is not None:
                self._files.link(repository, same.digest)
                return same
            digest = Digest(f"sha256:{sink.blob.hexdigest()}")
            self._files.adopt(repository, aside, digest)
        except OSError as exc:
            raise DiskFullError(f"layer: {exc.strerror or exc}") from exc
        finally:
            aside.unlink(missing_ok=True)
        fact = LayerFact(digest, diff_id, sink.size, sink.unpacked)
        self._keep(fact)
        return fact


def check_tar(source: IO[bytes]) -> None:
    """Read a tar's headers to its end; nothing at all is one without members. Raises InvalidRequestError."""
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=1 << 18) as archive:
            for _ in archive:
                pass
    except tarfile.ReadError as exc:
        if str(exc) != "empty file":
            raise InvalidRequestError(f"{_NO_TAR}: {exc}") from exc
    except (tarfile.TarError, *DAMAGE, ValueError, OverflowError) as exc:
        raise InvalidRequestError(f"{_NO_TAR}: {exc}") from exc


class _Sink:
    """Compresses and hashes what it is given."""

    def __init__(self, target: IO[bytes], check_size: Callable[[int], None]) -> None:
        self._target = target
        self._check_size = check_size
        self._deflate = Deflater()
        self.diff = hashlib.sha256()
        self.blob = hashlib.sha256()
        self.size = 0
        self.unpacked = 0

    def take(self, data: bytes) -> None:
        """Take some bytes of the tar. Raises InvalidRequestError beyond the limit."""
        self.diff.update(data)
        self.unpacked += len(data)
        if self.unpacked > _MOST_BYTES:
            raise InvalidRequestError(f"archive: larger than {_MOST_BYTES} bytes")
        self._put(self._deflate.compress(data))

    def finish(self) -> None:
        """Write what is left."""
        self._put(self._deflate.flush())
        self._target.flush()

    def _put(self, data: bytes) -> None:
        self.blob.update(data)
        self.size += len(data)
        self._check_size(self.size)
        self._target.write(data)


class _Tee:
    """A reader whose bytes a sink takes, too."""

    def __init__(self, source: IO[bytes], sink: _Sink) -> None:
        self._source = source
        self._sink = sink

    def read(self, size: int) -> bytes:
        data = checked_read(self._source, size)
        if data:
            self._sink.take(data)
        return data
