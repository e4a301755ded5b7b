"""A blob on its way to this host: one source after the other fills its file, any number read it meanwhile."""

import asyncio
import contextlib
import errno
import os
import time
from pathlib import Path
from typing import IO, Protocol

from labfleet_chassis.lent_socket import in_thread
from labfleet_proto.errors import DiskFullError, UnavailableError
from labfleet_proto.ids import Digest

_SLICE_S = 0.05
"""What has come is told so often."""


class Source(Protocol):
    """Where the next bytes of a blob come from; `take` and `is_ready` are called in a thread."""

    def is_ready(self, limit_s: float) -> bool:
        """Wait until something has come, or the end."""

    def take(self) -> memoryview:
        """Return some bytes, which stay so until the next call; none at the blob's end.

        Raises UnavailableError.
        """

    def abort(self) -> None:
        """Let a `take` that waits fail at once."""


class GrowingBlob:
    """A file that gets its bytes in their order; a whole one has them all from the beginning."""

    def __init__(
        self, path: Path, digest: Digest, size: int, *, has: int = 0, is_served: bool = False
    ) -> None:
        self.digest = digest
        self.size = size
        self.path = path
        self.has = has
        self.is_served = is_served
        """Whether other hosts may read it meanwhile, and it is kept for them."""
        self.is_failed = False
        self._grown = asyncio.Event()
        self._file: IO[bytes] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""
        return self.has == self.size

    def open(self) -> IO[bytes]:
        """The file to read from; its bytes up to `has` do not change. Raises FileNotFoundError."""
        return self.path.open("rb", buffering=0)

    async def fill(self, source: Source) -> int:
        """Append what comes within a moment, but something; return how much, 0 at the source's end.

        Raises DiskFullError, and what the source raises.
        """
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
        file = self._file.fileno()
        try:
            return await in_thread(lambda: _copy(source, file), source.abort)
        finally:
            self.has = os.fstat(file).st_size  # of a source that failed, too
            self._wake()

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
        """Nothing more comes here, whatever becomes of the file; again is nothing."""
        self.is_failed = True
        self.close()
        self._wake()

    def close(self) -> None:
        """Nothing more is appended; again is nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


def _copy(source: Source, file: int) -> int:
    """In a thread: each of them costs the loop a moment, so it stays while more comes."""
    end_s = time.monotonic() + _SLICE_S
    count = 0
    while data := source.take():
        count += len(data)
        _append(file, data)
        left_s = end_s - time.monotonic()
        if left_s <= 0 or not source.is_ready(left_s):
            break
    return count


def _append(file: int, data: memoryview) -> None:
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"fetch a layer: {exc.strerror}") from exc
        raise
