"""Uploads on their way: bytes aside, hashed as they come, taken up again after a restart."""

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from labfleet_proto.errors import (
    ConflictError,
    DigestMismatchError,
    DiskFullError,
    InvalidRequestError,
    NotFoundError,
)

MOST_BLOB_BYTES = 8 << 30
_UPLOAD_LIFE_S = 24 * 3600
_CHUNK = 1 << 20
_RESERVE_BYTES = 512 << 20
_SESSION = re.compile(r"[0-9a-f]{32}")


@dataclass
class Upload:
    """One upload session."""

    id: str
    repository: str
    file: BinaryIO
    size: int
    hash: "hashlib._Hash"
    lock: asyncio.Lock


class Uploads:
    """Sessions below one directory, which others use for files that get a blob's name in a moment, too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Upload] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self._drop_remains()

    def _about(self, name: str) -> Path:
        return self._directory / f"{name}.repository"

    def aside(self) -> Path:
        """Where bytes may wait for their name; gone after a restart."""
        return self._directory / f"put-{secrets.token_hex(8)}"

    # -- sessions

    def begin(self, repository: str) -> Upload:
        """Open an upload session. Raises DiskFullError."""
        there = os.statvfs(self._directory)
        if there.f_bavail * there.f_frsize < _RESERVE_BYTES:
            raise DiskFullError("the image store's disk is full")
        name = secrets.token_hex(16)
        # Not flushed: what a power cut leaves may be shorter.
        self._about(name).write_text(repository)
        file = (self._directory / name).open("a+b")
        upload = Upload(name, repository, file, 0, hashlib.sha256(), asyncio.Lock())
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
        file = (self._directory / name).open("a+b")
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

    def all(self) -> list[Upload]:
        """Sessions that this process knows."""
        return list(self._open.values())

    # -- bytes

    def check_offset(self, upload: Upload, first: int) -> None:
        """A chunk must begin where the last one ended. Raises ConflictError (416)."""
        if first != upload.size:
            raise ConflictError(f"chunk begins at {first}, the upload is at {upload.size}")

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

    def flushed(self, upload: Upload, digest: str) -> Path:
        """Flush what has come and say where it is; the session goes on until it is `forget`ed. Blocks.

        Raises DigestMismatchError, DiskFullError; then nothing is kept.
        """
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
        return self._directory / upload.id

    def forget(self, upload: Upload) -> None:
        """The bytes have their name: the session is over."""
        self._open.pop(upload.id, None)
        self._about(upload.id).unlink(missing_ok=True)

    def cancel(self, upload: Upload) -> None:
        """Drop a session and its bytes."""
        with contextlib.suppress(OSError):  # bytes that do not fit are dropped, too
            upload.file.close()
        (self._directory / upload.id).unlink(missing_ok=True)
        self.forget(upload)

    # -- what is left behind

    def sweep(self, now_s: float | None = None) -> None:
        """Drop uploads that nobody has touched for a day."""
        now = time.time() if now_s is None else now_s  # noqa: TID251 - compared with file times
        for upload in self.all():
            file = self._directory / upload.id
            if file.exists() and now - file.stat().st_mtime > _UPLOAD_LIFE_S:
                self.cancel(upload)
        busy = {name for upload in self._open for name in (upload, self._about(upload).name)}
        for path in self._directory.iterdir():
            if path.name not in busy and now - path.stat().st_mtime > _UPLOAD_LIFE_S:
                path.unlink(missing_ok=True)

    def _drop_remains(self) -> None:
        """Drop, before anybody works here, what a killed process has half made and nobody takes up again."""
        for path in self._directory.iterdir():
            is_session = _SESSION.fullmatch(path.name.removesuffix(".repository")) is not None
            is_taken_up = path.name.startswith("fetch-")
            if is_session:
                about = self._about(path.name.removesuffix(".repository"))
                body = about.with_suffix("")
                is_taken_up = body.exists() and about.exists() and about.stat().st_size > 0
            if not is_taken_up:
                path.unlink(missing_ok=True)
