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
from typing import IO, Protocol, cast

import zstandard

from labfleet_proto.errors import InvalidRequestError, LabfleetError
from labfleet_runtime_agent.adapters.decompression import Chunks, gunzipped, inflating, unzstd
from labfleet_runtime_agent.adapters.tree import DAMAGE, TreeWriter

_CHUNK = 1 << 20
_MOST_MEMORY = 2 << 30


class _Hash(Protocol):
    def update(self, data: bytes) -> None: ...
    def hexdigest(self) -> str: ...


class _Hashed(Chunks):
    """A reader that hashes what it hands out."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__(chunks)
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = super().read(size)
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


def _decoded(media_type: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if media_type.endswith(("+gzip", ".gzip")):
        return gunzipped(chunks)
    if media_type.endswith("+zstd"):
        return unzstd(chunks)
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
    except (zlib.error, inflating().error, zstandard.ZstdError, *DAMAGE) as exc:
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
