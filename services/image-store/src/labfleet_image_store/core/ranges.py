"""Ranges: of a blob's bytes (RFC 9110) and of an upload's chunks (distribution-spec)."""

import re

_BYTES = re.compile(r"bytes=(\d*)-(\d*)")
_CHUNK = re.compile(r"(?:bytes[ =])?(\d+)-(\d+)(?:/(?:\d+|\*))?")


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte that a `Range` header asks of `size` bytes; None means all of them.

    Several ranges and malformed headers are ignored, which RFC 9110 section 14.2 allows.
    Raises ValueError when the range lies outside (416).
    """
    found = _BYTES.fullmatch(header.strip())
    if found is None or (not found[1] and not found[2]):
        return None
    if not found[1]:
        wanted = int(found[2])
        if wanted == 0 or size == 0:
            raise ValueError(f"range {header} of {size} bytes")
        return max(size - wanted, 0), size - 1
    first = int(found[1])
    last = int(found[2]) if found[2] else size - 1
    if found[2] and last < first:
        return None
    if first >= size:
        raise ValueError(f"range {header} of {size} bytes")
    return first, min(last, size - 1)


def parse_content_range(header: str) -> tuple[int, int]:
    """First and last byte of an upload's chunk. Raises ValueError when it is malformed."""
    found = _CHUNK.fullmatch(header.strip())
    if found is None or int(found[2]) < int(found[1]):
        raise ValueError(f"Content-Range {header!r} is not <first>-<last>")
    return int(found[1]), int(found[2])
