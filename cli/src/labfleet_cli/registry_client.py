"""The fleet's registry as the operator's command line uses it: blobs are streamed, both ways."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, Self, cast
from urllib.parse import urlsplit

import httpx

from labfleet_cli.bundle_layout import INDEX_TYPES, MANIFEST_TYPES, Descriptor, digest_of
from labfleet_cli.machine import MachineError

_LIMIT = httpx.Timeout(120.0, connect=5.0)
_CHUNK = 1 << 20


class RegistryClient:
    """Blocking calls. Raises httpx.HTTPError, and MachineError with the registry's own words."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/v2/", timeout=_LIMIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def manifest(self, repository: str, reference: str) -> tuple[Descriptor, bytes] | None:
        """A manifest or an index; None if there is none of that name."""
        accept = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
        answer = self._client.get(f"{repository}/manifests/{reference}", headers={"Accept": accept})
        if answer.status_code == 404:
            return None
        _check(answer, f"read {repository}:{reference}")
        body = answer.content
        kind = answer.headers["content-type"].partition(";")[0]
        return Descriptor(kind, digest_of(body), len(body)), body

    def copy_blob(
        self, repository: str, wanted: Descriptor, write: Callable[[IO[bytes]], None]
    ) -> None:
        """Hand a blob to `write` as a stream. Raises MachineError when its bytes are not its digest's."""
        with self._client.stream("GET", f"{repository}/blobs/{wanted.digest}") as answer:
            if answer.is_error:
                answer.read()
            _check(answer, f"read {wanted.digest} of {repository}")
            source = _Hashed(answer.iter_raw(_CHUNK))
            write(cast("IO[bytes]", source))
            if source.size != wanted.size or f"sha256:{source.sha256.hexdigest()}" != wanted.digest:
                raise MachineError(f"the store's blob {wanted.digest} has other bytes")

    def push_blob(
        self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes], known_in: str = ""
    ) -> bool:
        """Push a blob unless it is there, or in the repository `known_in`; whether it was pushed."""
        if self._client.head(f"{repository}/blobs/{descriptor.digest}").status_code == 200:
            return False
        mount = {"mount": descriptor.digest, "from": known_in} if known_in else {}
        begun = self._client.post(f"{repository}/blobs/uploads/", params=mount)
        _check(begun, f"push to {repository}")
        if begun.status_code == 201:
            return False
        place = urlsplit(begun.headers["location"])
        answer = self._client.put(
            self._client.base_url.copy_with(path=place.path),
            params={"digest": descriptor.digest},
            content=iter(chunks),
            headers={
                "Content-Length": str(descriptor.size),
                "Content-Type": "application/octet-stream",
            },
        )
        _check(answer, f"push {descriptor.digest} to {repository}")
        return True

    def push_manifest(self, repository: str, reference: str, media_type: str, body: bytes) -> None:
        """Push a manifest under a tag or its digest."""
        answer = self._client.put(
            f"{repository}/manifests/{reference}",
            content=body,
            headers={"Content-Type": media_type},
        )
        _check(answer, f"push {repository}:{reference}")


class _Hashed:
    """A reader of chunks that hashes what it hands out."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes; fewer only at the end."""
        parts: list[bytes] = []
        left = size
        while left:
            self._rest = self._rest or next(self._chunks, b"")
            if not self._rest:
                break
            part, self._rest = self._rest[:left], self._rest[left:]
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        self.sha256.update(data)
        self.size += len(data)
        return data


def _check(answer: httpx.Response, what: str) -> None:
    if answer.is_error:
        try:
            words = answer.json()["errors"][0]["message"]
        except (json.JSONDecodeError, KeyError, IndexError, TypeError):
            words = f"the registry answers {answer.status_code}"
        raise MachineError(f"cannot {what}: {words}")
