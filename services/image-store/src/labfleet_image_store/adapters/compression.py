"""Compressed streams, recognised by their first bytes, inflated and made."""

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, Any, cast

import zstandard

from labfleet_proto.errors import InvalidRequestError

_XZ = b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"
_WINDOW = 1 << 27
_LEVEL = 1


def _fast() -> tuple[Any, Any]:
    """The libraries that read gzip files, and make and read what is in them."""
    try:
        from isal import igzip, isal_zlib  # noqa: PLC0415 - five times faster where it is installed
    except ImportError:
        return gzip, zlib
    return igzip, isal_zlib


_GZIP, _ZLIB = _fast()
DAMAGE = (
    zlib.error,
    _ZLIB.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    EOFError,
    gzip.BadGzipFile,
)


def inflated(source: IO[bytes]) -> IO[bytes]:
    """Return what a stream holds, decompressed if it is gzip, bzip2, xz or zstd."""
    peekable = source if isinstance(source, io.BufferedReader) else _buffered(source)
    head = peekable.peek(6)[:6]
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", _GZIP.GzipFile(fileobj=peekable, mode="rb"))
    if head.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(peekable))
    if head.startswith(_XZ):
        return cast("IO[bytes]", lzma.LZMAFile(peekable))
    if head.startswith(_ZSTD):
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        return cast("IO[bytes]", decompressor.stream_reader(peekable, read_across_frames=True))
    return cast("IO[bytes]", peekable)


def _buffered(source: IO[bytes]) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", source), 1 << 18)


class Deflater:
    """Makes one gzip member, the same for the same bytes."""

    def __init__(self) -> None:
        self._deflate: Any = _ZLIB.compressobj(_LEVEL, zlib.DEFLATED, 31)

    def compress(self, data: bytes) -> bytes:
        """Compress some bytes."""
        return cast("bytes", self._deflate.compress(data))

    def flush(self) -> bytes:
        """Return what is left."""
        return cast("bytes", self._deflate.flush())


def checked_read(source: IO[bytes], size: int) -> bytes:
    """Read from a stream that may be damaged. Raises InvalidRequestError."""
    try:
        return source.read(size)
    except DAMAGE as exc:
        raise InvalidRequestError(f"archive: damaged: {exc}") from exc
    except OSError as exc:
        if exc.errno is not None:
            raise
        raise InvalidRequestError(f"archive: damaged: {exc}") from exc  # as bz2 says it
