"""Compressed layers that this host serves to others, below `<state>/blobs`: for a while, up to so many bytes.

A blob is served while it still grows; when the agent ends before that, the next life fetches only the rest. It is
never flushed: what an earlier boot left is dropped, and who reads one checks its digest anyway. The least
recently read goes first.
"""

import contextlib
import itertools
import os
import shutil
from pathlib import Path

from labfleet_proto.errors import DiskFullError, NotFoundError
from labfleet_proto.ids import Digest
from labfleet_proto.layers import BlobState
from labfleet_runtime_agent.adapters.growing_blob import GrowingBlob
from labfleet_runtime_agent.core.eviction import Cached, evictable

_BOOT = "boot"
_PART = ".part"


class BlobCache:
    """Blobs by digest, whole or growing."""

    def __init__(self, state_dir: Path, most_bytes: int, boot_id: str) -> None:
        self._dir = state_dir / "blobs"
        self._most = most_bytes
        boot = self._dir / _BOOT
        if not boot.exists() or boot.read_text() != boot_id:
            shutil.rmtree(self._dir, ignore_errors=True)
        self._dir.mkdir(mode=0o700, exist_ok=True)
        boot.write_text(boot_id)
        self._sizes: dict[Digest, int] = {}
        self._begun: dict[Digest, int] = {}
        """Bytes of those whose fetching ended too early: it goes on from there."""
        for path in self._dir.iterdir():
            if path.suffixes not in ([], [_PART]):
                path.unlink()
            elif path != boot:
                sizes = self._begun if path.suffix else self._sizes
                sizes[Digest(f"sha256:{path.stem}")] = path.stat().st_size
        self._growing: dict[Digest, GrowingBlob] = {}
        self._unserved = itertools.count()

    @property
    def used_bytes(self) -> int:
        """What those take that are whole, or that nobody fetches on now."""
        return sum(self._sizes.values()) + sum(self._begun.values())

    def whole(self) -> set[Digest]:
        """Those that are here to the end."""
        return set(self._sizes)

    def growing(self) -> set[Digest]:
        """Those that are on their way, and served meanwhile."""
        return set(self._growing)

    def state_of(self, digest: Digest) -> BlobState:
        """What can be served of it."""
        if digest in self._sizes:
            return BlobState.WHOLE
        return BlobState.PARTIAL if digest in self._growing else BlobState.NONE

    def begin(self, digest: Digest, size: int) -> GrowingBlob:
        """Take up a blob that is being fetched, with what an earlier fetch has left of it.

        One for which there is no room is not served, nor left for later. Raises DiskFullError.
        """
        room = sum(each.size for each in self._growing.values()) + size
        is_served = room <= self._most and digest not in self._growing
        has = self._begun.pop(digest, 0) if is_served else 0
        while is_served and self.used_bytes + room > self._most and self.drop_oldest():
            pass
        name = _PART if is_served else f".{next(self._unserved)}{_PART}"
        path = self._path(digest).with_suffix(name)
        if has > size:
            path.unlink()
            has = 0
        try:
            path.touch(mode=0o600)
        except OSError as exc:
            raise DiskFullError(f"fetch layer {digest}: {exc.strerror}") from exc
        blob = GrowingBlob(path, digest, size, has=has, is_served=is_served)
        if is_served:
            self._growing[digest] = blob
        return blob

    def end(self, blob: GrowingBlob, *, is_good: bool) -> None:
        """Its fetching is over: keep it if its digest was right, else nobody gets more of it."""
        if blob.is_served:
            self._growing.pop(blob.digest, None)
        if blob.is_served and is_good:
            blob.close()
            blob.path = blob.path.rename(self._path(blob.digest))
            self._sizes[blob.digest] = blob.size
        else:
            blob.fail()
            blob.path.unlink(missing_ok=True)

    def leave(self, blob: GrowingBlob) -> None:
        """Its fetching ends before its time: what has come is there for the next one."""
        if not blob.is_served or blob.has == 0:
            self.end(blob, is_good=False)
            return
        blob.fail()
        del self._growing[blob.digest]
        self._begun[blob.digest] = blob.has

    def drop_oldest(self) -> bool:
        """Drop one that was begun, else the least recently read; False if there is none."""
        if self._begun:
            digest, _ = self._begun.popitem()
            self._path(digest).with_suffix(_PART).unlink(missing_ok=True)
            return True
        oldest = next(iter(evictable(self._cached(), ())), None)
        if oldest is not None:
            self.drop(Digest(oldest))
        return oldest is not None

    def drop(self, digest: Digest) -> None:
        """Drop a whole one; again is nothing. Who reads it now has it open, and goes on."""
        self._sizes.pop(digest, None)
        self._path(digest).unlink(missing_ok=True)

    def served(self, digest: Digest) -> GrowingBlob:
        """A blob to send to others, whole or growing. Raises NotFoundError."""
        return self._growing.get(digest) or self.kept(digest)

    def kept(self, digest: Digest) -> GrowingBlob:
        """A whole blob, which is used now. Raises NotFoundError."""
        size, path = self.size_of(digest), self._path(digest)
        try:
            os.utime(path)
        except FileNotFoundError as exc:
            raise NotFoundError(f"layer {digest} is not kept here") from exc
        return GrowingBlob(path, digest, size, has=size, is_served=True)

    def bytes_of_growing(self, digest: Digest) -> int:
        """How much has come of a blob that is not whole."""
        blob = self._growing.get(digest)
        return blob.has if blob is not None else self._begun.get(digest, 0)

    def size_of(self, digest: Digest) -> int:
        """Bytes of a blob when it is whole. Raises NotFoundError."""
        blob = self._growing.get(digest)
        if blob is not None:
            return blob.size
        if digest not in self._sizes:
            raise NotFoundError(f"layer {digest} is not kept here")
        return self._sizes[digest]

    def _cached(self) -> list[Cached]:
        found = []
        for digest in self._sizes:
            with contextlib.suppress(FileNotFoundError):
                found.append(Cached(digest, self._path(digest).stat().st_atime))
        return found

    def _path(self, digest: Digest) -> Path:
        return self._dir / digest.removeprefix("sha256:")
