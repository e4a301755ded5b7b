"""An image bundle on disk: hostile until every byte of it was checked; nothing of it is ever unpacked."""

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

from labfleet_chassis.tar_reading import DAMAGE, open_tar_file
from labfleet_cli.bundle_keys import BundleKeys, TrustedKey
from labfleet_cli.bundle_layout import (
    INDEX,
    LAYOUT,
    LAYOUT_TEXT,
    MOST_BLOBS,
    MOST_MANIFEST_BYTES,
    SIGNATURE,
    Descriptor,
    Image,
    digest_of,
    images_of,
    index_of,
    parse_signature,
    references,
    signature_text,
)
from labfleet_proto.errors import InvalidRequestError

_CHUNK = 1 << 20
_MOST_MEMBERS = MOST_BLOBS + 100
_MOST_SMALL_BYTES = 64 << 10


@dataclass(frozen=True)
class Contents:
    """What a bundle holds, all of it checked."""

    images: tuple[Image, ...]
    blobs: tuple[tuple[str, Descriptor], ...]
    """Every blob with a repository that needs it; manifests come after what they refer to."""


class BundleReader:
    """Reads a bundle; members are found by their names, which are taken literally."""

    def __init__(self, file: IO[bytes]) -> None:
        """Find all members. Raises InvalidRequestError."""
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            self._tar = open_tar_file(file)
            for member in self._tar:
                self._take(member)
        except DAMAGE as exc:
            raise InvalidRequestError(f"bundle: it is no tar of an image layout: {exc}") from exc
        if LAYOUT not in self._members:
            raise InvalidRequestError(f"bundle: it is no image layout: there is no {LAYOUT}")
        self._index = self._small(
            INDEX, MOST_MANIFEST_BYTES
        )  # once: what was signed is what is used

    def _take(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        name = member.name.removeprefix("./")
        if not member.isreg() or member.issparse():
            raise InvalidRequestError(f"bundle: {name[:100]!r} is no plain file")
        if name in self._members:
            raise InvalidRequestError(f"bundle: {name[:100]!r} stands in it twice")
        self._members[name] = member
        if len(self._members) > _MOST_MEMBERS:
            raise InvalidRequestError(f"bundle: more than {_MOST_MEMBERS} files")

    def signer(self, keys: list[TrustedKey]) -> TrustedKey | None:
        """The believed key that signed the index; None if it is unsigned, or nobody's here.

        Raises InvalidRequestError when a believed key's signature does not fit.
        """
        if SIGNATURE not in self._members:
            return None
        fingerprint, signature = parse_signature(self._small(SIGNATURE, _MOST_SMALL_BYTES))
        for key in keys:
            if key.fingerprint == fingerprint:
                if not key.has_signed(signature, self._index):
                    raise InvalidRequestError(
                        f"bundle: its index is not what {key.name} ({fingerprint[:16]}) signed"
                    )
                return key
        return None

    def signed_by(self) -> str:
        """Fingerprint that the signature names, whoever that is; empty without one."""
        if SIGNATURE not in self._members:
            return ""
        return parse_signature(self._small(SIGNATURE, _MOST_SMALL_BYTES))[0]

    def check(self) -> Contents:
        """Read and hash everything that the index leads to. Raises InvalidRequestError."""
        self._small(LAYOUT, _MOST_SMALL_BYTES)
        images = images_of(self._index)
        found: dict[tuple[str, str], tuple[str, Descriptor]] = {}
        checked: dict[str, int] = {}
        for image in images:
            self._walk(image.repository, image.manifest, found, checked, depth=0)
        return Contents(tuple(images), tuple(found.values()))

    def _walk(
        self,
        repository: str,
        descriptor: Descriptor,
        found: dict[tuple[str, str], tuple[str, Descriptor]],
        checked: dict[str, int],
        *,
        depth: int,
    ) -> None:
        if (repository, descriptor.digest) in found:
            return
        if depth > 3 or len(found) >= MOST_BLOBS:
            raise InvalidRequestError("bundle: it refers to too much, or too deeply")
        if descriptor.is_manifest:
            body = self.manifest(descriptor)
            for each in references(descriptor, body):
                self._walk(repository, each, found, checked, depth=depth + 1)
        elif checked.get(descriptor.digest) != descriptor.size:
            self._check_blob(descriptor)
            checked[descriptor.digest] = descriptor.size
        found[repository, descriptor.digest] = (repository, descriptor)

    def manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest, whole. Raises InvalidRequestError."""
        body = self._small(descriptor.member, MOST_MANIFEST_BYTES)
        if digest_of(body) != descriptor.digest or len(body) != descriptor.size:
            raise _altered(descriptor)
        return body

    def _check_blob(self, descriptor: Descriptor) -> None:
        hashed, size = hashlib.sha256(), 0
        for data in self.chunks(descriptor):
            hashed.update(data)
            size += len(data)
        if f"sha256:{hashed.hexdigest()}" != descriptor.digest or size != descriptor.size:
            raise _altered(descriptor)

    def chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob piece by piece. Raises InvalidRequestError."""
        with self._open(descriptor.member) as source:
            try:
                while data := source.read(_CHUNK):
                    yield data
            except DAMAGE as exc:
                raise InvalidRequestError(f"bundle: it ends within {descriptor.digest}") from exc

    def _open(self, name: str) -> IO[bytes]:
        member = self._members.get(name)
        opened = self._tar.extractfile(member) if member is not None else None
        if opened is None:
            raise InvalidRequestError(f"bundle: there is no {name} in it")
        return opened

    def _small(self, name: str, limit: int) -> bytes:
        with self._open(name) as source:
            try:
                data = source.read(limit + 1)
            except DAMAGE as exc:
                raise InvalidRequestError(f"bundle: it ends within {name}") from exc
        if len(data) > limit:
            raise InvalidRequestError(f"bundle: {name} is larger than {limit} bytes")
        return data


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BundleReader]:
    """Open a bundle. Raises InvalidRequestError, OSError."""
    with path.open("rb") as file:
        yield BundleReader(cast("IO[bytes]", file))


class BundleWriter:
    """Writes a bundle beside its name, and gives it the name when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Self:
        self._file = self._aside.open("xb")
        self._tar = tarfile.TarFile(
            fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT, copybufsize=_CHUNK
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._aside.replace(self._path)
        finally:
            self._file.close()
            self._aside.unlink(missing_ok=True)

    def begin(self, images: list[Image], keys: BundleKeys | None) -> None:
        """Write the index, and sign it with the fleet's key."""
        index = index_of(images)
        small = {LAYOUT: LAYOUT_TEXT, INDEX: index}
        if keys is not None:
            small[SIGNATURE] = signature_text(keys.own().fingerprint, keys.sign(index))
        for name, data in small.items():
            self._add(name, len(data), io.BytesIO(data))

    def add(self, descriptor: Descriptor, source: IO[bytes]) -> None:
        """Write a blob. Raises tarfile.TarError or OSError when the source is too short."""
        self._add(descriptor.member, descriptor.size, source)

    def add_bytes(self, descriptor: Descriptor, data: bytes) -> None:
        """Write a blob that is at hand."""
        self.add(descriptor, io.BytesIO(data))

    def _add(self, name: str, size: int, source: IO[bytes]) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        self._tar.addfile(member, source)


def _altered(descriptor: Descriptor) -> InvalidRequestError:
    return InvalidRequestError(f"bundle: blob {descriptor.digest} has other bytes")
