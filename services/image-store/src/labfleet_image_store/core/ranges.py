"""Ranges: of a blob's bytes (RFC 9110) and of an upload's chunks (distribution-spec)."""

import re
from dataclasses import dataclass

_BYTES = re.compile(r"bytes=(\d*)-(\d*)")
_CHUNK = re.compile(r"(?:bytes[ =])?(\d+)-(\d+)(?:/(?:\d+|\*))?")


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end`, `end` included."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.end - self.start + 1


@dataclass(frozen=True)
class Unsatisfiable:
    """The range lies outside the blob: 416."""


def byte_range(header: str | None, size: int) -> Span | Unsatisfiable | None:
    """Return what a `Range` header asks of `size` bytes; None means all of them.

    Several ranges and malformed headers are ignored, which RFC 9110 section 14.2 allows.
    """
    found = _BYTES.fullmatch(header.strip()) if header else None
    if found is None or (not found[1] and not found[2]):
        return None
    if not found[1]:
        wanted = int(found[2])
        if wanted == 0 or size == 0:
            return Unsatisfiable()
        return Span(max(size - wanted, 0), size - 1)
    start = int(found[1])
    end = int(found[2]) if found[2] else size - 1
    if found[2] and end < start:
        return None
    if start >= size:
        return Unsatisfiable()
    return Span(start, min(end, size - 1))


def chunk_range(header: str) -> Span | None:
    """Parse an upload's `Content-Range: <start>-<end>`; None if it is malformed."""
    found = _CHUNK.fullmatch(header.strip())
    if found is None or int(found[2]) < int(found[1]):
        return None
    return Span(int(found[1]), int(found[2]))
