"""Making archives that no honest program makes: members, raw headers, extensions, packings."""

import gzip
import io
import tarfile
from collections.abc import Iterable
from typing import Any

import zstandard

BLOCK = 512
END = bytes(2 * BLOCK)

Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> Member:
    """A member; `fields` are attributes of its TarInfo."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(data)
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(member, field, value)
    return member, data


def file(name: str, data: bytes = b"mine", **fields: Any) -> Member:
    return entry(name, data=data, **fields)


def directory(name: str, **fields: Any) -> Member:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> Member:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def link(name: str, target: str) -> Member:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def fifo(name: str) -> Member:
    return entry(name, tarfile.FIFOTYPE)


def device(name: str, kind: bytes = tarfile.CHRTYPE) -> Member:
    return entry(name, kind, devmajor=1, devminor=3)


def tar(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar whose names are taken as they are."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form, errors="surrogateescape") as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()[: archive.offset] + END


def padded(data: bytes) -> bytes:
    """Data to the end of its last block."""
    return data + bytes(-len(data) % BLOCK)


def summed(block: bytes) -> bytes:
    """A header with the sum that it should have."""
    bare = bytearray(block)
    bare[148:156] = b" " * 8
    bare[148:156] = b"%06o\0 " % sum(bare)
    return bytes(bare)


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **fields: bytes) -> bytes:
    """One block; `fields` are raw bytes at an offset: `at_124=b'...'`."""
    member = tarfile.TarInfo(name)
    member.type, member.size, member.mode = kind, size, 0o644
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT)[:BLOCK])
    for place, value in fields.items():
        start = int(place.removeprefix("at_"))
        block[start : start + len(value)] = value
    return summed(bytes(block))


def records(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Records of an extended header, lengths reckoned (POSIX pax)."""
    made = b""
    for key, value in pairs:
        bare = len(key) + len(value) + 3
        length = bare + len(str(bare))
        length = bare + len(str(length))
        made += b"%d %s=%s\n" % (length, key, value)
    return made


def pax(*pairs: tuple[bytes, bytes], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header, for the member that follows."""
    data = records(pairs)
    return header("pax", kind, len(data)) + padded(data)


def longname(name: bytes, kind: bytes = tarfile.GNUTYPE_LONGNAME) -> bytes:
    """GNU's long name, for the member that follows."""
    return header("././@LongLink", kind, len(name) + 1) + padded(name + b"\0")


def sparse_gnu(name: str, pieces: list[tuple[int, bytes]], size: int) -> bytes:
    """A file of GNU's old sparse form, up to four pieces."""
    fields = {"at_483": tarfile.itn(size, 12, tarfile.GNU_FORMAT)}  # type: ignore[attr-defined]
    for number, (start, data) in enumerate(pieces):
        place = 386 + 24 * number
        fields[f"at_{place}"] = tarfile.itn(start, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
        fields[f"at_{place + 12}"] = tarfile.itn(len(data), 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    stored = b"".join(data for _, data in pieces)
    return header(name, tarfile.GNUTYPE_SPARSE, len(stored), **fields) + padded(stored)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def skippable(data: bytes) -> bytes:
    """A frame of zstd that readers skip (RFC 8878)."""
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def wide_zstd(data: bytes, window_log: int) -> bytes:
    """A frame that asks for a window of two to the power of `window_log` bytes."""
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=0)
    made = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return made.compress(data) + made.flush()


def zeros(head: bytes, size: int, packing: str) -> bytes:
    """The head and so many zeros, compressed, without ever being held."""
    made = io.BytesIO()
    target: Any = (
        gzip.GzipFile(fileobj=made, mode="wb", compresslevel=1)
        if packing == "gzip"
        else zstandard.ZstdCompressor().stream_writer(made, closefd=False)
    )
    piece = bytes(1 << 20)
    with target:
        target.write(head)
        for written in range(0, size, len(piece)):
            target.write(piece[: size - written])
    return made.getvalue()
