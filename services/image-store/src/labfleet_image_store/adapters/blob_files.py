"""Blobs as files by digest, uploads aside, and which repository may read which blob.

An upload is hashed while it is received, flushed, and renamed: a blob is whole or absent. A link
file `links/<repository>/<digest>` says that a repository refers to the blob. A blob found damaged is set
aside (`Quarantine`): from then on it is absent, until somebody brings its bytes again.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from labfleet_chassis.durable_files import flush_directory, make_directory
from labfleet_image_store.adapters.quarantine import Quarantine
from labfleet_image_store.core.collecting import Link
from labfleet_proto.errors import (
    ConflictError,
    DigestMismatchError,
    DiskFullError,
    InvalidRequestError,
    NotFoundError,
)
from labfleet_proto.ids import Digest

MOST_BLOB_BYTES = 8 << 30
_UPLOAD_LIFE_S = 24 * 3600
_CHUNK = 1 << 20
_RESERVE_BYTES = 512 << 20
_SESSION = re.compile(r"[0-9a-f]{32}")


@dataclass
class Upload:
    """One upload session; `hash` is None after a restart, until the file is read again."""

    id: str
    repository: str
    file: BinaryIO
    size: int
    hash: "hashlib._Hash"
    lock: asyncio.Lock


class BlobFiles:
    """The store's files below one directory."""

    def __init__(
        self,
        directory: Path,
        now_s: Callable[[], float] = time.time,  # noqa: TID251 - compared with file times
    ) -> None:
        self._now_s = now_s
        self._blobs = directory / "blobs" / "sha256"
        self._uploads = directory / "uploads"
        self._links = directory / "links"
        for path in (self._blobs, self._uploads, self._links):
            path.mkdir(parents=True, exist_ok=True)
        for path in (self._blobs.parent, directory):
            flush_directory(path)
        self._open: dict[str, Upload] = {}
        self._keeping = threading.RLock()
        """Held while a blob gets or loses its name: the collector runs in a thread of its own."""
        self.quarantine = Quarantine(directory / "quarantine")
        self._condemned: dict[str, int] = {}
        self._drop_remains()

    # -- reading

    def path_of(self, digest: str) -> Path:
        """File of a blob, present or not."""
        name = digest.removeprefix("sha256:")
        return self._blobs / name[:2] / name

    def has(self, repository: str, digest: str) -> bool:
        """Whether the repository refers to the blob and the blob is here."""
        return self._link(repository, digest).exists() and self.path_of(digest).exists()

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

    # -- links

    def _link(self, repository: str, digest: str) -> Path:
        return self._links / repository.replace("/", "%") / digest.removeprefix("sha256:")

    def knows(self, repository: str) -> bool:
        """Whether the repository refers to anything."""
        folder = self._links / repository.replace("/", "%")
        return folder.is_dir() and any(folder.iterdir())

    def any_with(self, prefix: str, digest: str) -> str | None:
        """A repository whose name begins so and that has the blob; None if there is none. Blocks."""
        name = digest.removeprefix("sha256:")
        if self.path_of(digest).exists():
            for folder in self._links.iterdir():
                repository = folder.name.replace("%", "/")
                if repository.startswith(prefix) and (folder / name).exists():
                    return repository
        return None

    def refers(self, repository: str, digest: str) -> bool:
        """Whether the repository refers to the blob, be it here or damaged."""
        return self._link(repository, digest).exists()

    def link(self, repository: str, digest: str) -> None:
        """Let a repository refer to a blob that is here; again only renews it for the collector.

        Raises NotFoundError: it has gone meanwhile.
        """
        link = self._link(repository, digest)
        now_s = self._now_s()
        with self._keeping:
            if not self.path_of(digest).exists() and not self.quarantine.has(digest):
                raise NotFoundError(f"blob {digest} is not in the store")
            is_new = not link.exists()
            make_directory(link.parent)
            link.touch()
            os.utime(link, (now_s, now_s))
        if is_new:
            flush_directory(link.parent)

    def unlink(self, repository: str, digest: str) -> bool:
        """Take the repository's reference away, durably; False if there was none. Blocks."""
        link = self._link(repository, digest)
        try:
            link.unlink()
        except FileNotFoundError:
            return False
        flush_directory(link.parent)
        return True

    def linkers(self, digest: str) -> list[str]:
        """Repositories that refer to a blob. Blocks."""
        found = self._links.glob(f"*/{digest.removeprefix('sha256:')}")
        return sorted(path.parent.name.replace("%", "/") for path in found)

    def lost(self) -> list[Link]:
        """References to blobs that are neither here nor known as damaged. Blocks."""
        return [
            link
            for link in self.all_links()
            if not self.path_of(link.digest).exists()
            and not self.quarantine.has(link.digest)
            and not self.has(link.repository, link.digest)
            and self.refers(link.repository, link.digest)
        ]

    # -- collecting

    def all_links(self) -> list[Link]:
        """Every reference. Blocks."""
        found = []
        for folder in self._links.iterdir():
            repository = folder.name.replace("%", "/")
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found.append(Link(repository, f"sha256:{path.name}", path.stat().st_mtime))
        return found

    def unlink_stale(self, repository: str, digest: str, oldest_s: float) -> None:
        """Take a reference away unless it was renewed since."""
        link = self._link(repository, digest)
        with self._keeping, contextlib.suppress(FileNotFoundError):
            if link.stat().st_mtime < oldest_s:
                link.unlink()

    def drop_unlinked(self, oldest_s: float) -> list[str]:
        """Delete blobs that no repository refers to and that are older; return their digests. Blocks."""
        self._settle_links()
        linked = {link.digest for link in self.all_links()}
        gone = []
        for path in list(self._blobs.glob("*/*")):
            digest = f"sha256:{path.name}"
            if digest in linked:
                continue
            with self._keeping, contextlib.suppress(FileNotFoundError):
                is_wanted = any(self._links.glob(f"*/{path.name}"))
                if not is_wanted and path.stat().st_mtime < oldest_s:
                    path.unlink()
                    gone.append(digest)
        for damaged in self.quarantine.all():
            if not self.linkers(damaged.digest) and damaged.found_at_s < oldest_s:
                self.quarantine.drop(damaged.digest)
        return gone

    def _settle_links(self) -> None:
        """No reference that was taken comes back by a power cut to a blob that has gone."""
        for folder in list(self._links.iterdir()):
            flush_directory(folder)

    # -- writing

    def put(self, repository: str, data: bytes) -> Digest:
        """Store a small blob durably. Raises DiskFullError; then nothing is kept."""
        digest = Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
        aside = self._uploads / f"put-{secrets.token_hex(8)}"
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

    def adopt(self, repository: str, aside: Path, digest: Digest) -> None:
        """Publish a file of the uploads' directory, flushed and named by its digest. Raises OSError."""
        with self._keeping:
            self._publish(aside, digest)
            self.link(repository, digest)

    def begin(self, repository: str) -> Upload:
        """Open an upload session. Raises DiskFullError."""
        there = os.statvfs(self._uploads)
        if there.f_bavail * there.f_frsize < _RESERVE_BYTES:
            raise DiskFullError("the image store's disk is full")
        name = secrets.token_hex(16)
        self._about(name).write_text(
            repository
        )  # not flushed: what a power cut leaves may be shorter
        upload = Upload(
            name,
            repository,
            (self._uploads / name).open("a+b"),
            0,
            hashlib.sha256(),
            asyncio.Lock(),
        )
        self._open[name] = upload
        return upload

    def find(self, repository: str, name: str) -> Upload:
        """Return a session, taking one up again after a restart. Raises NotFoundError."""
        upload = self._open.get(name)
        if upload is None and name.isalnum() and self._about(name).exists():
            upload = self._reopen(name)
        if upload is None or upload.repository != repository:
            raise NotFoundError(f"upload {name} is not known")
        return upload

    def _reopen(self, name: str) -> Upload:
        file = (self._uploads / name).open("a+b")
        file.seek(0)
        digest = hashlib.sha256()
        size = 0
        while data := file.read(_CHUNK):
            digest.update(data)
            size += len(data)
        repository = self._about(name).read_text()
        upload = Upload(name, repository, file, size, digest, asyncio.Lock())
        self._open[name] = upload
        return upload

    def append(self, upload: Upload, data: bytes) -> None:
        """Add bytes. Raises InvalidRequestError beyond 8 GiB, DiskFullError; then nothing is kept."""
        if upload.size + len(data) > MOST_BLOB_BYTES:
            raise InvalidRequestError(f"blob is larger than {MOST_BLOB_BYTES} bytes")
        try:
            upload.file.write(data)
            upload.file.flush()  # what the client is told of must outlive this process
        except OSError as exc:
            self.cancel(upload)
            raise DiskFullError(f"upload {upload.id}: {exc.strerror}") from exc
        upload.hash.update(data)
        upload.size += len(data)

    def finish(self, upload: Upload, digest: str) -> None:
        """Flush and publish. Raises DigestMismatchError, DiskFullError; then nothing is kept."""
        have = f"sha256:{upload.hash.hexdigest()}"
        if have != digest:
            self.cancel(upload)
            raise DigestMismatchError(f"the bytes are {have}, not {digest}")
        try:
            upload.file.flush()
            os.fsync(upload.file.fileno())
        except OSError as exc:
            self.cancel(upload)
            raise DiskFullError(f"upload {upload.id}: {exc.strerror}") from exc
        upload.file.close()
        self.adopt(upload.repository, self._uploads / upload.id, Digest(digest))
        self._open.pop(upload.id, None)
        self._about(upload.id).unlink(missing_ok=True)

    def open_uploads(self) -> list[Upload]:
        """Sessions that this process knows."""
        return list(self._open.values())

    def cancel(self, upload: Upload) -> None:
        """Drop a session and its bytes."""
        with contextlib.suppress(OSError):  # bytes that do not fit are dropped, too
            upload.file.close()
        self._open.pop(upload.id, None)
        (self._uploads / upload.id).unlink(missing_ok=True)
        self._about(upload.id).unlink(missing_ok=True)

    def sweep(self, now_s: float | None = None) -> None:
        """Drop uploads that nobody has touched for a day."""
        now = time.time() if now_s is None else now_s  # noqa: TID251 - compared with file times
        for upload in list(self._open.values()):
            file = self._uploads / upload.id
            if file.exists() and now - file.stat().st_mtime > _UPLOAD_LIFE_S:
                self.cancel(upload)
        busy = {name for upload in self._open for name in (upload, self._about(upload).name)}
        for path in self._uploads.iterdir():
            if path.name not in busy and now - path.stat().st_mtime > _UPLOAD_LIFE_S:
                path.unlink(missing_ok=True)

    def _about(self, name: str) -> Path:
        return self._uploads / f"{name}.repository"

    def _publish(self, aside: Path, digest: str) -> None:
        """Give flushed bytes their name. They take the place of older ones, whose disk may have faded."""
        final = self.path_of(digest)
        make_directory(final.parent)
        now_s = self._now_s()
        os.utime(aside, (now_s, now_s))
        aside.rename(final)
        flush_directory(final.parent)
        self.quarantine.drop(digest)

    def _drop_remains(self) -> None:
        """Drop, before anybody works here, what a killed process has half made and nobody takes up again."""
        for path in self._uploads.iterdir():
            is_session = _SESSION.fullmatch(path.name.removesuffix(".repository")) is not None
            is_taken_up = path.name.startswith("fetch-")
            if is_session:
                about = self._about(path.name.removesuffix(".repository"))
                body = about.with_suffix("")
                is_taken_up = body.exists() and about.exists() and about.stat().st_size > 0
            if not is_taken_up:
                path.unlink(missing_ok=True)

    def check_offset(self, upload: Upload, first: int) -> None:
        """A chunk must begin where the last one ended. Raises ConflictError (416)."""
        if first != upload.size:
            raise ConflictError(f"chunk begins at {first}, the upload is at {upload.size}")
