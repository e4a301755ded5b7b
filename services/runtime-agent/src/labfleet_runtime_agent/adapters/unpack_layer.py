"""The confined child that unpacks one layer: `python -m ...unpack_layer ROOT < blob`.

Or, while the blob still grows: `... ROOT FD < news`; FD is its file, the news are how many bytes it has by now,
eight bytes each, until no more will come.

Prints one JSON line: `{"diff_id": ..., "digest": ..., "error": ...}`. A crash or a bomb ends this process, not
the agent.
"""

import contextlib
import hashlib
import json
import os
import queue
import resource
import struct
import sys
import threading
from typing import IO, cast

from labfleet_chassis.tar_reading import DAMAGE, open_tar
from labfleet_proto.errors import InvalidRequestError, LabfleetError
from labfleet_runtime_agent.adapters import decompression
from labfleet_runtime_agent.adapters.decompression import (
    LONGEST_MAGIC,
    Chunks,
    decoded_by_magic,
    is_packed,
)
from labfleet_runtime_agent.adapters.tree import Caps, TreeWriter, told

NEWS = struct.Struct("!Q")
_CHUNK = 1 << 20
_HASHED_LATER = 8
"""Chunks that may wait for a hash."""
_LOOK_EVERY_S = 1.0
"""Whoever waits for room among them looks so often whether anybody still makes some."""
_MOST_MEMORY = 2 << 30
_MOST_BYTES = 66 << 30
"""Of the tar: all files that `Caps` allow, and their headers."""
_FREE_OF_RATIO = 1 << 30
_MOST_RATIO = 2000
"""gzip cannot shrink anything to less than a thousandth; zstd makes a bomb of 30,000 to 1."""
_SPARE_DISK_BYTES = 512 << 20


class _Hash:
    """SHA-256 in a thread of its own: hashing takes as long as all the rest.

    What it raises there is raised here, to whoever hands bytes on or asks for the digest.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._waiting: queue.Queue[bytes] = queue.Queue(_HASHED_LATER)
        self._failure: Exception | None = RuntimeError("layer: the thread that hashes has ended")
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while data := self._waiting.get():
                self._sha256.update(data)
        except Exception as exc:  # noqa: BLE001 - the top of a thread: raised by who hears of it
            self._failure = exc
        else:
            self._failure = None

    def update(self, data: bytes) -> None:
        """Hash some bytes, soon."""
        if data and not self._put(data):
            raise self._failure or RuntimeError("layer: bytes after the digest")

    def _put(self, data: bytes) -> bool:
        """Hand bytes on; False if the thread that takes them has ended."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put(data, timeout=_LOOK_EVERY_S)
                return True
        return False

    def close(self) -> None:
        """Hash what waits, and no more; again is nothing."""
        self._put(b"")
        self._thread.join()

    def digest(self) -> str:
        """The digest of all bytes."""
        self.close()
        if self._failure is not None:
            raise self._failure
        return f"sha256:{self._sha256.hexdigest()}"


class _Growing:
    """A blob that is read while it comes, and no further than that."""

    def __init__(self, file: IO[bytes], news: IO[bytes]) -> None:
        self._file = file
        self._news = news
        self._has = 0
        self._at = 0

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes, and wait for the first; none once nothing more comes."""
        while self._at >= self._has:
            word = self._news.read(NEWS.size)
            if not word:
                return b""
            (self._has,) = NEWS.unpack(word)
        data = self._file.read(min(size, self._has - self._at))
        self._at += len(data)
        return data


class _Raw:
    """The blob as it comes, hashed and counted."""

    def __init__(self, source: IO[bytes], digest: _Hash) -> None:
        self._source = source
        self._head = b""
        self._digest = digest
        self.size = 0

    @property
    def is_packed(self) -> bool:
        """Known once its first bytes were read; a plain tar has one digest, hashed once."""
        return is_packed(self._head)

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        is_begin = len(self._head) < LONGEST_MAGIC
        if is_begin:
            self._head += data[:LONGEST_MAGIC]
        if is_begin or self.is_packed:
            self._digest.update(data)
        self.size += len(data)
        return data


class _Decoded(Chunks):
    """What the blob holds, hashed, and refused when it is a bomb."""

    def __init__(self, raw: _Raw, digest: _Hash) -> None:
        super().__init__(decoded_by_magic(cast("IO[bytes]", raw)))
        self._raw = raw
        self._size = 0
        self._digest = digest

    def read(self, size: int) -> bytes:
        data = super().read(size)
        self._digest.update(data)
        self._size += len(data)
        if self._size > _MOST_BYTES:
            raise InvalidRequestError(f"layer: more than {_MOST_BYTES} bytes unpacked")
        if self._size > _FREE_OF_RATIO and self._size > _MOST_RATIO * self._raw.size:
            raise InvalidRequestError(
                f"layer: {self._raw.size} bytes became more than {_MOST_RATIO} times as many"
            )
        return data

    def drain(self) -> None:
        """Hash what follows the tar's end: padding belongs to the diff id."""
        while self.read(_CHUNK):
            pass


def unpack(root: str, source: IO[bytes]) -> dict[str, str]:
    """Unpack a layer into the empty directory `root`; return its digests. Raises LabfleetError.

    Its first bytes say how it is compressed, as for docker: media types are wrong in the wild, and both
    digests are compared with what was asked for.
    """
    with contextlib.closing(_Hash()) as digest, contextlib.closing(_Hash()) as diff_id:
        return _unpack(root, source, digest, diff_id)


def _unpack(root: str, source: IO[bytes], digest: _Hash, diff_id: _Hash) -> dict[str, str]:
    raw = _Raw(source, digest)
    stream = _Decoded(raw, diff_id)
    caps = Caps(spare_disk_bytes=_SPARE_DISK_BYTES)
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open_tar(cast("IO[bytes]", stream), _CHUNK) as archive:
            TreeWriter(root_fd, with_whiteouts=True, caps=caps).write_all(archive)
        stream.drain()
        whole = digest if raw.is_packed else diff_id
        return {"digest": whole.digest(), "diff_id": diff_id.digest()}
    except MemoryError as exc:
        raise InvalidRequestError("layer: needs more memory than unpacking has") from exc
    except (*decompression.DAMAGE, *DAMAGE) as exc:
        raise InvalidRequestError(f"layer: damaged: {told(exc)}") from exc
    finally:
        os.close(root_fd)


def _blob(descriptor: list[str]) -> IO[bytes]:
    if not descriptor:
        return sys.stdin.buffer
    file = open(int(descriptor[0]), "rb", buffering=0)  # noqa: PTH123, SIM115 - no path; to the end
    return cast("IO[bytes]", _Growing(file, sys.stdin.buffer))


def main() -> None:
    """Run as the child."""
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    try:
        answer = unpack(sys.argv[1], _blob(sys.argv[2:]))
    except LabfleetError as exc:
        answer = {"error": exc.message, "code": exc.code}
    except Exception as exc:  # noqa: BLE001 - the child's last word
        answer = {"error": f"{type(exc).__name__}: {exc}", "code": "internal"}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
