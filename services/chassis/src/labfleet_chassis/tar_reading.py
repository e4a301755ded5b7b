"""Reading hostile tars with the library: what it would pass over is refused, what it would gather is limited.

`tarfile` takes a broken header for the archive's end, lets global headers rule all members, and follows chains
of extensions as deep as they go. Go's reader, which docker has, does none of this.
"""

import io
import tarfile
from typing import IO, Self, cast

from labfleet_proto.errors import InvalidRequestError

MOST_EXTENSION_BYTES = 1 << 20
"""Of one extended header or long name, as in Go's archive/tar."""
MOST_EXTENSIONS = 16
"""One after the other before a member."""

DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, IndexError, RecursionError)
"""What the library and the system calls make of nonsense in a header."""

_BLOCK = 512
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Archive(tarfile.TarFile):
    """A tar whose extensions are counted."""

    extensions = 0
    """Seen since the last member."""


class _Header(tarfile.TarInfo):
    """A member's header, or an extension of the next one's."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a block; a broken one is an error wherever it stands."""
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as exc:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(exc)) from exc

    def _proc_member(self, archive: _Archive) -> tarfile.TarInfo:
        """Called for each header: the place that the library names for changes like these."""
        if self.size < 0:
            raise InvalidRequestError(f"archive: {self.name[:80]!r} has a negative size")
        if self.type in _EXTENSIONS:
            archive.extensions += 1
            if self.size > MOST_EXTENSION_BYTES:
                raise InvalidRequestError(f"archive: an extended header of {self.size} bytes")
            if archive.extensions > MOST_EXTENSIONS:
                raise InvalidRequestError(
                    f"archive: more than {MOST_EXTENSIONS} extended headers in a row"
                )
        else:
            archive.extensions = 0
        if self.type == tarfile.XGLTYPE:  # docker passes over them
            stream = cast("IO[bytes]", archive.fileobj)
            stream.read(-(-self.size // _BLOCK) * _BLOCK)
            return cast("tarfile.TarInfo", self.fromtarfile(archive))
        return cast("tarfile.TarInfo", super()._proc_member(archive))  # type: ignore[misc]


class TarStream:
    """A stream that is read once and forwards; large parts are handed on without a copy."""

    def __init__(self, source: IO[bytes], buffer_bytes: int) -> None:
        self._source = source
        self._buffer_bytes = buffer_bytes
        self._rest = memoryview(b"")
        self._position = 0

    def is_at_end(self) -> bool:
        """Whether nothing more comes."""
        if not self._rest:
            self._rest = memoryview(self._source.read(self._buffer_bytes))
        return not self._rest

    def piece(self, most: int) -> memoryview:
        """The next bytes, some of `most`; none only at the end."""
        if self.is_at_end():
            return self._rest
        found, self._rest = self._rest[:most], self._rest[most:]
        self._position += len(found)
        return found

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end."""
        parts = []
        while size and (part := self.piece(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def tell(self) -> int:
        """How many bytes were read."""
        return self._position

    def seek(self, position: int) -> None:
        """Pass over what lies before `position`. Raises StreamError when that was read already."""
        missing = position - self._position
        if missing < 0:
            raise tarfile.StreamError("a stream is not read backwards")
        while missing and (part := self.piece(missing)):
            missing -= len(part)


def open_tar(source: IO[bytes], buffer_bytes: int) -> tarfile.TarFile:
    """Open a stream for one pass over it; nothing at all is an archive without members.

    Raises one of DAMAGE.
    """
    stream = TarStream(source, buffer_bytes)
    if stream.is_at_end():
        stream = TarStream(io.BytesIO(bytes(2 * _BLOCK)), buffer_bytes)
    return _Archive(fileobj=cast("IO[bytes]", stream), mode="r", tarinfo=_Header)


def open_tar_file(source: IO[bytes]) -> tarfile.TarFile:
    """Open a plain tar that can be read in any order. Raises one of DAMAGE."""
    return _Archive.open(mode="r:", fileobj=source, tarinfo=_Header)


def check_end(archive: tarfile.TarFile) -> None:
    """After the last member: a single block of zeros does not end an archive. Raises InvalidRequestError."""
    stream = cast("IO[bytes]", archive.fileobj)
    if stream.read(_BLOCK).strip(b"\0"):
        raise InvalidRequestError("archive: goes on after a single block of zeros")


def data_of(member: tarfile.TarInfo, archive: tarfile.TarFile) -> TarStream:
    """The stream where the stored bytes of the last member begin. Raises one of DAMAGE."""
    stream = cast("TarStream", archive.fileobj)
    stream.seek(member.offset_data)
    return stream


def stored_pieces(member: tarfile.TarInfo, archive: tarfile.TarFile) -> list[tuple[int, int]]:
    """Where the stored bytes of a sparse file belong: offsets and lengths, in their order.

    Raises InvalidRequestError for a map that overlaps, goes back, or is longer than the file or its data.
    """
    end, total = 0, 0
    told = cast("list[tuple[int, int]]", member.sparse or [])  # typeshed has it wrong
    pieces = [(start, length) for start, length in told if length]
    for start, length in pieces:
        if start < end or length < 0 or start + length > member.size:
            raise InvalidRequestError(
                f"archive: {member.name[:80]!r} has a sparse map without sense"
            )
        end, total = start + length, total + length
    if total > archive.offset - member.offset_data:
        raise InvalidRequestError(
            f"archive: {member.name[:80]!r} has less data than its sparse map"
        )
    return pieces
