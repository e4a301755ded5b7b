"""A blob that is being fetched: bytes aside, hashed as they come, taken up again after a restart."""

import hashlib
import os
from pathlib import Path

from labfleet_proto.errors import DigestMismatchError, DiskFullError
from labfleet_proto.ids import Digest

_CHUNK = 1 << 20
_RESERVE_BYTES = 512 << 20


class PartialBlob:
    """One file; its methods block. Whoever has it open is alone with it."""

    def __init__(self, path: Path, digest: Digest, total: int) -> None:
        """Open it with the bytes that are there. Raises DiskFullError."""
        self.path = path
        self.digest = digest
        self.total = total
        self.size = 0
        self._hash = hashlib.sha256()
        there = os.statvfs(path.parent)
        if there.f_bavail * there.f_frsize < _RESERVE_BYTES + total:
            raise DiskFullError(f"blob {digest}: the image store's disk is full")
        self._file = path.open("a+b")
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            self._hash.update(data)
            self.size += len(data)
        if self.size > total:
            self.restart()

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes. Raises DiskFullError."""
        try:
            self._file.write(data)
        except OSError as exc:
            raise DiskFullError(f"blob {self.digest}: {exc.strerror}") from exc
        self._hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Forget all bytes."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    def finish(self) -> None:
        """Flush a blob that is whole. Raises DigestMismatchError (and forgets it), DiskFullError."""
        have = f"sha256:{self._hash.hexdigest()}"
        if have != self.digest:
            self.restart()
            raise DigestMismatchError(f"the bytes are {have}, not {self.digest}")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise DiskFullError(f"blob {self.digest}: {exc.strerror}") from exc

    def close(self) -> None:
        """Close the file; what is in it stays for the next attempt. Raises DiskFullError."""
        try:
            self._file.close()
        except OSError as exc:
            raise DiskFullError(f"blob {self.digest}: {exc.strerror}") from exc
