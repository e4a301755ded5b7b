"""A blob read again from the disk, piece by piece, to see whether it is still what its name says."""

import hashlib
import os
from pathlib import Path

PIECE_BYTES = 4 << 20


class BlobReading:
    """One file; its methods block.

    What the kernel remembers of it is dropped before it is read, as memory would answer for the disk, and
    again afterwards, as a store read through would push everything else out of memory.
    """

    def __init__(self, path: Path) -> None:
        """Open it. Raises OSError."""
        self._fd = os.open(path, os.O_RDONLY)
        self._at = 0
        self._hash = hashlib.sha256()
        self.inode = os.fstat(self._fd).st_ino
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def step(self) -> int:
        """Read a piece; return its bytes, 0 at the end. Raises OSError: the disk does not give it."""
        data = os.pread(self._fd, PIECE_BYTES, self._at)
        self._hash.update(data)
        if data:
            os.posix_fadvise(self._fd, self._at, len(data), os.POSIX_FADV_DONTNEED)
        self._at += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        """Of what was read."""
        return f"sha256:{self._hash.hexdigest()}"

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
