"""A tar of images on disk: kept aside while it is read, opened member by member."""

import contextlib
import os
import posixpath
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from labfleet_chassis.tar_reading import DAMAGE, open_tar_file
from labfleet_image_store.adapters.compression import checked_read, inflated
from labfleet_proto.errors import DiskFullError, InvalidRequestError

_CHUNK = 1 << 20
_MOST_BYTES = 64 << 30
_MOST_MEMBERS = 100_000
_RESERVE_BYTES = 512 << 20
_LOOK_EVERY = 64 << 20
_MOST_LINKS = 8


class TarFile:
    """Random access to a tar; names are looked up as they stand in it."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            self._tar = open_tar_file(file)
            self._members: dict[str, tarfile.TarInfo] = {}
            for member in self._tar:
                self._members[posixpath.normpath(member.name)] = member
                if len(self._members) > _MOST_MEMBERS:
                    raise InvalidRequestError(f"archive: more than {_MOST_MEMBERS} members")
        except DAMAGE as exc:
            raise InvalidRequestError(f"archive: it is no tar of images: {exc}") from exc

    def __contains__(self, name: str) -> bool:
        return posixpath.normpath(name) in self._members

    def open(self, name: str) -> IO[bytes]:
        """Open a file, following links inside the archive. Raises InvalidRequestError."""
        path = posixpath.normpath(name)
        for _ in range(_MOST_LINKS):
            member = self._members.get(path)
            if member is not None and member.issym():
                path = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
                continue
            if member is not None and member.islnk():
                path = posixpath.normpath(member.linkname)
                continue
            opened = (
                self._tar.extractfile(member) if member is not None and member.isreg() else None
            )
            if opened is None:
                break
            return opened
        raise InvalidRequestError(f"archive: open {name}: no such file")

    def read(self, name: str, limit: int) -> bytes:
        """Read a small file whole. Raises InvalidRequestError."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidRequestError(f"archive: {name} is larger than {limit} bytes")
        return data


@contextlib.contextmanager
def spooled(directory: Path, source: IO[bytes]) -> Iterator[TarFile]:
    """Keep a tar, decompressed, while the block reads it; it has no name on the disk.

    Raises InvalidRequestError, DiskFullError.
    """
    path = directory / f"spool-{secrets.token_hex(8)}"
    with path.open("w+b") as file:
        path.unlink()  # gone with this process, whatever happens
        stream = inflated(source)
        size, looked = 0, 0
        while data := checked_read(stream, _CHUNK):
            size += len(data)
            if size > _MOST_BYTES:
                raise InvalidRequestError(f"archive: larger than {_MOST_BYTES} bytes")
            if size - looked >= _LOOK_EVERY:
                looked = size
                there = os.statvfs(directory)
                if there.f_bavail * there.f_frsize < _RESERVE_BYTES:
                    raise DiskFullError("the image store's disk is full")
            try:
                file.write(data)
            except OSError as exc:
                raise DiskFullError(f"archive: {exc.strerror}") from exc
        file.seek(0)
        yield TarFile(cast("IO[bytes]", file))
