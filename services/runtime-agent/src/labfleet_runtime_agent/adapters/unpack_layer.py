"""The confined child that unpacks one layer: `python -m ...unpack_layer ROOT MEDIA_TYPE < blob`.

Prints one JSON line: `{"diff_id": ..., "digest": ..., "error": ...}`. A crash or a bomb ends this process, not
the agent.
"""

import hashlib
import json
import os
import resource
import sys
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Protocol, cast

import zstandard

from labfleet_proto.errors import InvalidRequestError, LabfleetError
from labfleet_runtime_agent.adapters.tree import DAMAGE, TreeWriter

_CHUNK = 1 << 20
_MOST_MEMORY = 2 << 30


class _Hash(Protocol):
    def update(self, data: bytes) -> None: ...
    def hexdigest(self) -> str: ...


class _Hashed:
    """A file-like reader that hashes what it hands out."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        parts = []
        wanted = size
        while wanted > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
            part, self._rest = self._rest[:wanted], self._rest[wanted:]
            parts.append(part)
            wanted -= len(part)
        data = b"".join(parts)
        self.sha256.update(data)
        return data

    def drain(self) -> None:
        """Hash what follows the tar's end: padding belongs to the diff id."""
        while self.read(_CHUNK):
            pass


def _raw(source: IO[bytes], digest: _Hash) -> Iterator[bytes]:
    while data := source.read(_CHUNK):
        digest.update(data)
        yield data


def _gunzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate, also several members one after the other (RFC 1952), a chunk at a time."""
    library = _inflating()
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
        raise InvalidRequestError("layer: gzip stream ends too early")


def _inflating() -> Any:
    """The library that inflates gzip."""
    try:
        from isal import isal_zlib  # noqa: PLC0415 - five times faster where it is installed
    except ImportError:
        return zlib
    return isal_zlib


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress, also several frames, a chunk at a time."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    source = cast("IO[bytes]", _Hashed(chunks))
    with decompressor.stream_reader(source, read_across_frames=True) as stream:
        while data := stream.read(_CHUNK):
            yield data


def _decoded(media_type: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if media_type.endswith(("+gzip", ".gzip")):
        return _gunzipped(chunks)
    if media_type.endswith("+zstd"):
        return _unzstd(chunks)
    return chunks


def unpack(root: str, media_type: str, source: IO[bytes]) -> dict[str, str]:
    """Unpack a layer into the empty directory `root`; return its digests. Raises LabfleetError."""
    digest = hashlib.sha256()
    stream = _Hashed(_decoded(media_type, _raw(source, digest)))
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=1 << 18) as archive:
            TreeWriter(root_fd, with_whiteouts=True).write_all(archive)
        stream.drain()
    except (zlib.error, _inflating().error, zstandard.ZstdError, *DAMAGE) as exc:
        raise InvalidRequestError(f"layer: damaged: {exc}") from exc
    finally:
        os.close(root_fd)
    return {
        "digest": f"sha256:{digest.hexdigest()}",
        "diff_id": f"sha256:{stream.sha256.hexdigest()}",
    }


def main() -> None:
    """Run as the child."""
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    try:
        answer = unpack(sys.argv[1], sys.argv[2], sys.stdin.buffer)
    except LabfleetError as exc:
        answer = {"error": exc.message, "code": exc.code}
    except Exception as exc:  # noqa: BLE001 - the child's last word
        answer = {"error": f"{type(exc).__name__}: {exc}", "code": "internal"}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
