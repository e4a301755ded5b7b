"""The confined child that unpacks one layer: `python -m ...unpack_layer ROOT < blob`.

Prints one JSON line: `{"diff_id": ..., "digest": ..., "error": ...}`. A crash or a bomb ends this process, not
the agent.
"""

import hashlib
import json
import os
import resource
import sys
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

_CHUNK = 1 << 20
_BUFFER = 1 << 18
_MOST_MEMORY = 2 << 30
_MOST_BYTES = 66 << 30
"""Of the tar: all files that `Caps` allow, and their headers."""
_FREE_OF_RATIO = 1 << 30
_MOST_RATIO = 2000
"""gzip cannot shrink anything to less than a thousandth; zstd makes a bomb of 30,000 to 1."""
_SPARE_DISK_BYTES = 512 << 20


class _Raw:
    """The blob as it comes, hashed and counted."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._head = b""
        self.sha256 = hashlib.sha256()
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
            self.sha256.update(data)
        self.size += len(data)
        return data


class _Decoded(Chunks):
    """What the blob holds, hashed, and refused when it is a bomb."""

    def __init__(self, raw: _Raw) -> None:
        super().__init__(decoded_by_magic(cast("IO[bytes]", raw)))
        self._raw = raw
        self._size = 0
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = super().read(size)
        self.sha256.update(data)
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
    raw = _Raw(source)
    stream = _Decoded(raw)
    caps = Caps(spare_disk_bytes=_SPARE_DISK_BYTES)
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open_tar(cast("IO[bytes]", stream), _BUFFER) as archive:
            TreeWriter(root_fd, with_whiteouts=True, caps=caps).write_all(archive)
        stream.drain()
    except MemoryError as exc:
        raise InvalidRequestError("layer: needs more memory than unpacking has") from exc
    except (*decompression.DAMAGE, *DAMAGE) as exc:
        raise InvalidRequestError(f"layer: damaged: {told(exc)}") from exc
    finally:
        os.close(root_fd)
    whole = raw if raw.is_packed else stream
    return {
        "digest": f"sha256:{whole.sha256.hexdigest()}",
        "diff_id": f"sha256:{stream.sha256.hexdigest()}",
    }


def main() -> None:
    """Run as the child."""
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    try:
        answer = unpack(sys.argv[1], sys.stdin.buffer)
    except LabfleetError as exc:
        answer = {"error": exc.message, "code": exc.code}
    except Exception as exc:  # noqa: BLE001 - the child's last word
        answer = {"error": f"{type(exc).__name__}: {exc}", "code": "internal"}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
