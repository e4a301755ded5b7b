"""Blobs as files by digest: published whole or absent, set aside when damaged, dropped when nobody refers to them.

Bytes on their way are `Uploads`, references are `Links`. A blob found damaged is set aside
(`Quarantine`): from then on it is absent, until somebody brings its bytes again.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from labfleet_chassis.durable_files import flush_directory, make_directory
from labfleet_image_store.adapters.links import Links
from labfleet_image_store.adapters.quarantine import Quarantine
from labfleet_image_store.adapters.uploads import Upload, Uploads
from labfleet_image_store.core.collecting import Link
from labfleet_proto.errors import DiskFullError, InvalidRequestError, NotFoundError
from labfleet_proto.ids import Digest


class BlobFiles:
    """The store's files below one directory."""

    def __init__(
        self,
        directory: Path,
        now_s: Callable[[], float] = time.time,  # noqa: TID251 - compared with file times
    ) -> None:
        self._now_s = now_s
        self._blobs = directory / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self.uploads = Uploads(directory / "uploads")
        self.links = Links(directory / "links")
        self.quarantine = Quarantine(directory / "quarantine")
        for path in (self._blobs.parent, directory):
            flush_directory(path)
        self._keeping = threading.RLock()
        """Held while a blob or a reference gets or loses its name: all who do so are threads."""
        self._unflushed: dict[tuple[str, str], object] = {}
        """References that are made and may not be on the disk yet."""
        self._condemned: dict[str, int] = {}
        self.links.flush_all()  # what a killed process made is on the disk before it is relied on

    # -- reading

    def path_of(self, digest: str) -> Path:
        """File of a blob, present or not."""
        name = digest.removeprefix("sha256:")
        return self._blobs / name[:2] / name

    def has(self, repository: str, digest: str) -> bool:
        """Whether the repository refers to the blob and the blob is here."""
        return self.links.refers(repository, digest) and self.path_of(digest).exists()

    def any_with(self, prefix: str, digest: str) -> str | None:
        """A repository whose name begins so and that has the blob; None if there is none. Blocks."""
        if not self.path_of(digest).exists():
            return None
        return self.links.any_with(prefix, digest)

    def size(self, digest: str) -> int:
        """Bytes of a blob. Raises NotFoundError."""
        try:
            return self.path_of(digest).stat().st_size
        except FileNotFoundError as exc:
            raise NotFoundError(f"blob {digest} is not in the store") from exc

    def read(self, digest: str, limit: int) -> bytes:
        """Read a small blob whole, and see that it is whole.

        Raises NotFoundError (also when it is damaged: then it is set aside), InvalidRequestError beyond
        `limit`.
        """
        if self.size(digest) > limit:
            raise InvalidRequestError(f"blob {digest} is larger than {limit} bytes")
        try:
            with self.path_of(digest).open("rb") as file:
                data = file.read()
                inode = os.fstat(file.fileno()).st_ino
        except FileNotFoundError as exc:
            raise NotFoundError(f"blob {digest} is not in the store") from exc
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            self.condemn(digest, inode)
            raise NotFoundError(f"blob {digest} is damaged")
        return data

    def total(self) -> tuple[int, int]:
        """Number and bytes of all blobs."""
        sizes = [path.stat().st_size for path in self._blobs.glob("*/*")]
        return len(sizes), sum(sizes)

    def digests(self) -> list[Digest]:
        """All blobs, in order. Blocks."""
        return [
            Digest(f"sha256:{name}") for name in sorted(p.name for p in self._blobs.glob("*/*"))
        ]

    # -- damage

    def condemn(self, digest: str, inode: int) -> bool:
        """Set a damaged blob aside; False if it is another file by now, or gone. Blocks."""
        path = self.path_of(digest)
        with self._keeping, contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == inode:
                self._condemned[digest] = self.condemnations(digest) + 1
                self.quarantine.take(path, digest, self._now_s())
                return True
        return False

    def condemnations(self, digest: str) -> int:
        """How often the blob was found damaged: who reads it asks before and after."""
        return self._condemned.get(digest, 0)

    def lost(self) -> list[Link]:
        """References to blobs that are neither here nor known as damaged. Blocks."""
        return [
            link
            for link in self.links.all()
            if not self.path_of(link.digest).exists()
            and not self.quarantine.has(link.digest)
            and not self.has(link.repository, link.digest)
            and self.links.refers(link.repository, link.digest)
        ]

    # -- publishing

    def put(self, repository: str, data: bytes) -> Digest:
        """Store a small blob durably. Blocks. Raises DiskFullError; then nothing is kept."""
        digest = Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
        aside = self.uploads.aside()
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            aside.unlink(missing_ok=True)
            raise DiskFullError(f"blob {digest}: {exc.strerror}") from exc
        self.adopt(repository, aside, digest)
        return digest

    def finish(self, upload: Upload, digest: str) -> None:
        """Flush and publish. Blocks. Raises DigestMismatchError, DiskFullError; then nothing is kept."""
        self.adopt(upload.repository, self.uploads.flushed(upload, digest), Digest(digest))
        self.uploads.forget(upload)

    def adopt(self, repository: str, aside: Path, digest: Digest) -> None:
        """Publish a file of the uploads' directory, flushed and named by its digest. Raises OSError."""
        with self._keeping:
            self._publish(aside, digest)
            self.link(repository, digest)

    def _publish(self, aside: Path, digest: str) -> None:
        """Give flushed bytes their name. They take the place of older ones, whose disk may have faded."""
        final = self.path_of(digest)
        make_directory(final.parent)
        now_s = self._now_s()
        os.utime(aside, (now_s, now_s))
        aside.rename(final)
        flush_directory(final.parent)
        self.quarantine.drop(digest)

    # -- who refers to what

    def link(self, repository: str, digest: str) -> None:
        """Let a repository refer to a blob that is here; again only renews it for the collector. Blocks.

        The reference is on the disk when this returns, whoever made it. Raises NotFoundError: the blob
        has gone meanwhile.
        """
        key = (repository, digest)
        with self._keeping:
            if not self.path_of(digest).exists() and not self.quarantine.has(digest):
                raise NotFoundError(f"blob {digest} is not in the store")
            if self.links.renew(repository, digest, self._now_s()):
                self._unflushed[key] = object()
            made = self._unflushed.get(key)
        if made is None:
            return
        self.links.flush(repository)
        with self._keeping:
            if self._unflushed.get(key) is made:  # else it was taken and made again meanwhile
                del self._unflushed[key]

    def renew(self, repository: str, digest: str) -> bool:
        """Tell the collector that a blob of the repository is wanted; False if it has none such. Blocks."""
        with self._keeping:
            if not self.has(repository, digest):
                return False
            self.link(repository, digest)
        return True

    def keep_on(self, repository: str, digests: Iterable[str]) -> None:
        """Renew those of the references that there are, also to what is damaged. Blocks."""
        for digest in digests:
            with self._keeping:
                if self.links.refers(repository, digest):
                    self.links.renew(repository, digest, self._now_s())

    def unlink(self, repository: str, digest: str) -> bool:
        """Take the repository's reference away, durably; False if there was none. Blocks."""
        with self._keeping:
            is_gone = self.links.remove(repository, digest)
        if is_gone:
            self.links.flush(repository)
        return is_gone

    def unlink_all(self, repository: str) -> int:
        """Take all references of a repository that has some away, durably; return how many. Blocks."""
        with self._keeping:
            count = self.links.remove_all(repository)
        self.links.flush(repository)
        return count

    # -- collecting

    def unlink_stale(self, stale: Iterable[Link], oldest_s: float) -> None:
        """Take references away, but for those that were renewed since. Blocks."""
        for link in stale:
            with self._keeping:
                self.links.remove_stale(link.repository, link.digest, oldest_s)

    def drop_unlinked(self, oldest_s: float) -> list[str]:
        """Delete blobs that no repository refers to and that are older; return their digests. Blocks."""
        self.links.flush_all()  # no reference that was taken comes back to a blob that has gone
        linked = {link.digest for link in self.links.all()}
        gone = []
        for path in list(self._blobs.glob("*/*")):
            digest = f"sha256:{path.name}"
            if digest in linked:
                continue
            with self._keeping, contextlib.suppress(FileNotFoundError):
                if not self.links.linkers(digest) and path.stat().st_mtime < oldest_s:
                    path.unlink()
                    gone.append(digest)
        for damaged in self.quarantine.all():
            if not self.links.linkers(damaged.digest) and damaged.found_at_s < oldest_s:
                self.quarantine.drop(damaged.digest)
        return gone
