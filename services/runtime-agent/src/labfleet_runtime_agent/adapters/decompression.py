"""Decoding compressed streams a chunk at a time, so that a bomb costs time but no memory."""

import bz2
import itertools
import lzma
import os
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import zstandard

from labfleet_proto.errors import InvalidRequestError

_CHUNK = 1 << 20
_MOST_XZ_MEMORY = 256 << 20
_MARK_BYTES = 16
LONGEST_MAGIC = 10


class Chunks:
    """A file-like reader of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end."""
        parts = []
        wanted = size
        while wanted > 0:
            if not self._rest:
                chunk = next(self._chunks, b"")
                if not chunk:
                    break
                if len(chunk) == size == wanted:  # nothing was read yet: no copy
                    return chunk
                self._rest = memoryview(chunk)
            part, self._rest = self._rest[:wanted], self._rest[wanted:]
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)


def gunzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate, also several members one after the other (RFC 1952), a chunk at a time."""
    library = inflating()
    inflate = library.decompressobj(wbits=31)
    started = False
    for data in chunks:
        left, is_full = data, False
        while left or is_full:
            started = True
            out = inflate.decompress(left, _CHUNK)
            if out:
                yield out
            left = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            is_full = len(out) == _CHUNK and not inflate.eof  # it may hold more
            if inflate.eof:
                inflate = library.decompressobj(wbits=31)
                started = bool(left)
    if started:
        raise InvalidRequestError("archive: gzip stream ends too early")


def inflating() -> Any:
    """The library that inflates gzip."""
    try:
        from isal import isal_zlib  # noqa: PLC0415 - five times faster where it is installed
    except ImportError:
        return zlib
    return isal_zlib


def unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress, also several frames, a chunk at a time.

    The library takes a stream that ends too early for one that ends. So a frame of our own comes last:
    only after a whole stream is it read as one. Raises InvalidRequestError, zstandard.ZstdError.
    """
    mark = os.urandom(_MARK_BYTES)
    last = zstandard.ZstdCompressor().compress(mark)
    source = cast("IO[bytes]", Chunks(itertools.chain(chunks, (last,))))
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    held = b""
    with decompressor.stream_reader(source, read_across_frames=True) as stream:
        while data := stream.read(_CHUNK - _MARK_BYTES):
            held += data
            yield held[:-_MARK_BYTES]
            held = held[-_MARK_BYTES:]
    if held != mark:
        raise InvalidRequestError("archive: compressed stream ends too early")


def _with(decompressor: Any, chunks: Iterator[bytes], begin: Any) -> Iterator[bytes]:
    """Decompress by a class of bz2 or lzma, also several streams, a chunk at a time."""
    for data in chunks:
        left = data
        while left or not (decompressor.needs_input or decompressor.eof):
            if decompressor.eof:
                decompressor = begin()
            out = decompressor.decompress(left, _CHUNK)
            left = decompressor.unused_data if decompressor.eof else b""
            if out:
                yield out
    if not decompressor.eof:
        raise InvalidRequestError("archive: compressed stream ends too early")


def decoded_by_magic(source: IO[bytes]) -> Iterator[bytes]:
    """Yield what a stream holds, decompressed where its first bytes say so, as docker does for `cp`."""
    first = b""
    while len(first) < LONGEST_MAGIC and (data := source.read(LONGEST_MAGIC - len(first))):
        first += data

    def chunks() -> Iterator[bytes]:
        if first:
            yield first + source.read(_CHUNK - len(first))
        while data := source.read(_CHUNK):
            yield data

    if first.startswith(b"\x1f\x8b\x08"):
        return gunzipped(chunks())
    if first.startswith(b"\x28\xb5\x2f\xfd") or _is_skippable(first):
        return unzstd(chunks())
    if first.startswith(b"BZh"):
        return _with(bz2.BZ2Decompressor(), chunks(), bz2.BZ2Decompressor)
    if first.startswith(b"\xfd7zXZ\x00"):

        def begin() -> lzma.LZMADecompressor:
            return lzma.LZMADecompressor(memlimit=_MOST_XZ_MEMORY)

        return _with(begin(), chunks(), begin)
    return chunks()


def is_packed(first: bytes) -> bool:
    """Whether `decoded_by_magic` changes a stream that begins so."""
    magics = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00")
    return first.startswith(magics) or _is_skippable(first)


def _is_skippable(first: bytes) -> bool:
    """Whether a zstd stream begins with a skippable frame (RFC 8878)."""
    return len(first) >= 4 and first[1:4] == b"\x2a\x4d\x18" and first[0] & 0xF0 == 0x50


DAMAGE = (zlib.error, inflating().error, zstandard.ZstdError, lzma.LZMAError, OSError)
"""What the libraries make of a damaged stream; bz2 says OSError."""
