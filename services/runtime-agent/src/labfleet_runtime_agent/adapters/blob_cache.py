"""Compressed layers that this host serves to others, below `<state>/blobs`: for a while, up to so many bytes.

A blob is served while it still grows. It is never flushed: what an earlier boot left is dropped, and who
reads one checks its digest anyway. The least recently read goes first.
"""

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from labfleet_proto.errors import NotFoundError, UnavailableError
from labfleet_proto.ids import Digest
from labfleet_proto.layers import BlobState
from labfleet_runtime_agent.core.eviction import Cached, evictable

_BOOT = "boot"
_PIECE = 1 << 18


class GrowingBlob:
    """A blob that is being fetched: one writes, any number read."""

    def __init__(self, path: Path, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self.path = path
        self.has = 0
        self.is_failed = False
        self._grown = asyncio.Event()
        self._lock = threading.Lock()
        """Held while a thread writes: the file is never closed under it."""
        self._file: IO[bytes] = path.open("wb", buffering=0)

    async def write(self, data: bytes) -> None:
        """Append. A disk that is full ends the serving, not the fetching."""
        if self.is_failed:
            return
        try:
            await asyncio.to_thread(self._append, data)
        except OSError:
            self.fail()
            return
        self.has += len(data)
        self._wake()

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        with self._lock:
            while left and not self._file.closed:
                left = left[self._file.write(left) :]

    async def wait(self, beyond: int, limit_s: float) -> None:
        """Wait until it has more than `beyond` bytes, for at most `limit_s`. Raises UnavailableError."""
        grown = self._grown
        if not self.is_failed and self.has <= beyond:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await grown.wait()
        if self.is_failed:
            raise UnavailableError(f"layer {self.digest}: its fetching has failed here")

    def fail(self) -> None:
        """Nothing more comes, and what came is worth nothing. Again is nothing."""
        self.is_failed = True
        self.close()
        self.path.unlink(missing_ok=True)
        self._wake()

    def close(self) -> None:
        """Let go of the file; again is nothing."""
        with self._lock:
            self._file.close()

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


class BlobCache:
    """Blobs by digest, whole or growing."""

    def __init__(self, state_dir: Path, most_bytes: int, boot_id: str) -> None:
        self._dir = state_dir / "blobs"
        self._most = most_bytes
        boot = self._dir / _BOOT
        if not boot.exists() or boot.read_text() != boot_id:
            shutil.rmtree(self._dir, ignore_errors=True)
        self._dir.mkdir(mode=0o700, exist_ok=True)
        for path in self._dir.glob("*.part"):
            path.unlink()
        boot.write_text(boot_id)
        self._sizes = {
            Digest(f"sha256:{path.name}"): path.stat().st_size
            for path in self._dir.iterdir()
            if path != boot
        }
        self._growing: dict[Digest, GrowingBlob] = {}

    @property
    def used_bytes(self) -> int:
        """What the whole ones take."""
        return sum(self._sizes.values())

    def whole(self) -> set[Digest]:
        """Those that are here to the end."""
        return set(self._sizes)

    def growing(self) -> set[Digest]:
        """Those that are on their way."""
        return set(self._growing)

    def state_of(self, digest: Digest) -> BlobState:
        """What can be served of it."""
        if digest in self._sizes:
            return BlobState.WHOLE
        return BlobState.PARTIAL if digest in self._growing else BlobState.NONE

    def begin(self, digest: Digest, size: int) -> GrowingBlob | None:
        """Take up a blob that is being fetched; None if it does not fit, or cannot be written."""
        room = sum(each.size for each in self._growing.values()) + size
        if room > self._most or digest in self._growing:
            return None
        for name in evictable(self._cached(), ()):
            if self.used_bytes + room <= self._most:
                break
            self.drop(Digest(name))
        try:
            blob = GrowingBlob(self._path(digest).with_suffix(".part"), digest, size)
        except OSError:
            return None
        self._growing[digest] = blob
        return blob

    def end(self, blob: GrowingBlob, *, is_good: bool) -> None:
        """Its fetching is over: keep it if its digest was right, else nobody gets more of it."""
        self._growing.pop(blob.digest, None)
        if not is_good or blob.is_failed or blob.has != blob.size:
            blob.fail()
            return
        blob.close()
        blob.path.rename(self._path(blob.digest))
        self._sizes[blob.digest] = blob.size

    def drop_oldest(self) -> bool:
        """Drop the least recently read; False if there is none."""
        oldest = next(iter(evictable(self._cached(), ())), None)
        if oldest is not None:
            self.drop(Digest(oldest))
        return oldest is not None

    def drop(self, digest: Digest) -> None:
        """Drop a whole one; again is nothing. Who reads it now has it open, and goes on."""
        self._sizes.pop(digest, None)
        self._path(digest).unlink(missing_ok=True)

    async def read(self, digest: Digest, first: int, idle_s: float) -> AsyncIterator[bytes]:
        """Yield a blob from a byte on to its end, as it grows; no bytes each time nothing came in `idle_s`.

        Raises NotFoundError, and UnavailableError when its fetching fails.
        """
        blob = self._growing.get(digest)
        with self._opened(digest, blob) as file:
            size = blob.size if blob is not None else self._sizes[digest]
            at = first
            while at < size:
                data = await asyncio.to_thread(os.pread, file.fileno(), _PIECE, at)
                if not data:
                    if blob is None:
                        raise UnavailableError(f"layer {digest}: its file is too short")
                    await blob.wait(at, idle_s)
                at += len(data)
                yield data

    def bytes_of_growing(self, digest: Digest) -> int:
        """How much of a blob has come that is on its way; 0 if it is not."""
        blob = self._growing.get(digest)
        return blob.has if blob is not None else 0

    def size_of(self, digest: Digest) -> int:
        """Bytes of a blob when it is whole. Raises NotFoundError."""
        blob = self._growing.get(digest)
        if blob is not None:
            return blob.size
        if digest not in self._sizes:
            raise NotFoundError(f"layer {digest} is not kept here")
        return self._sizes[digest]

    def _opened(self, digest: Digest, blob: GrowingBlob | None) -> IO[bytes]:
        try:
            if blob is not None:
                return blob.path.open("rb", buffering=0)
            self.size_of(digest)
            path = self._path(digest)
            os.utime(path)
            return path.open("rb", buffering=0)
        except FileNotFoundError as exc:
            raise NotFoundError(f"layer {digest} is not kept here") from exc

    def _cached(self) -> list[Cached]:
        found = []
        for digest in self._sizes:
            with contextlib.suppress(FileNotFoundError):
                found.append(Cached(digest, self._path(digest).stat().st_atime))
        return found

    def _path(self, digest: Digest) -> Path:
        return self._dir / digest.removeprefix("sha256:")
