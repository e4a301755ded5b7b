"""Damaged blobs, set aside: never served, there for who wants to look at them, gone when they are healed."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from labfleet_chassis.durable_files import flush_directory
from labfleet_proto.ids import Digest


@dataclass(frozen=True)
class Damaged:
    """A blob whose bytes are not what its digest says."""

    digest: Digest
    size_bytes: int
    """Of the damaged file."""
    found_at_s: float


class Quarantine:
    """One directory with the damaged files under the names of their blobs. All methods block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def _path(self, digest: str) -> Path:
        return self._directory / digest.removeprefix("sha256:")

    def take(self, file: Path, digest: str, now_s: float) -> None:
        """Move a blob's file here, for good: after a power cut it is here, too."""
        os.utime(file, (now_s, now_s))
        file.rename(self._path(digest))
        flush_directory(self._directory)
        flush_directory(file.parent)

    def has(self, digest: str) -> bool:
        """Whether the blob is damaged and nobody has brought it again."""
        return self._path(digest).exists()

    def drop(self, digest: str) -> bool:
        """Forget a damaged file, as the blob is whole again or nobody wants it; False if there is none."""
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def all(self) -> list[Damaged]:
        """What is here, by digest."""
        found = []
        for path in sorted(self._directory.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                there = path.stat()
                digest = Digest(f"sha256:{path.name}")
                found.append(Damaged(digest, there.st_size, there.st_mtime))
        return found
