"""Blobs from upstreams: each fetched once however many wait for it, taken up where one upstream left it."""

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from labfleet_chassis.logs import Log
from labfleet_chassis.tasks import TaskGroup
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.partial_blob import PartialBlob
from labfleet_image_store.adapters.uploads import MOST_BLOB_BYTES
from labfleet_image_store.core import upstreams as core
from labfleet_image_store.core.manifests import Descriptor
from labfleet_image_store.core.upstreams import Route, Trouble, Upstream, UpstreamError
from labfleet_image_store.service.upstreams import NoneHasItError, Troubles, Upstreams
from labfleet_proto.errors import (
    DigestMismatchError,
    InternalError,
    InvalidRequestError,
    LabfleetError,
    UnavailableError,
)
from labfleet_proto.ids import Digest

_AT_ONCE = 8
_TELL_EVERY_S = 0.25
_MOST_IN_VAIN = 3
"""An upstream may fail so often for one blob without sending a byte of it."""
_MOST_TRIES = 60
_PAUSE_S = 0.3
_LEAST_BYTES_PER_S = 32 << 10
_SETTLE_S = 900.0
_BLOCK = 1 << 20

Tell = Callable[[int], Awaitable[None]]
"""Called with the bytes that have come, a few times a second."""


@dataclass
class _Flight:
    """One blob on its way."""

    route: Route
    path: str
    blob: Descriptor
    repository: str
    current: int = 0
    waiters: int = 0
    task: "asyncio.Task[None] | None" = None
    error: LabfleetError | None = None


class Fetcher:
    """Fetches blobs into repositories that keep what was fetched."""

    def __init__(
        self, files: BlobFiles, directory: Path, upstreams: Upstreams, tasks: TaskGroup, log: Log
    ) -> None:
        self._files = files
        self._directory = directory
        self._upstreams = upstreams
        self._tasks = tasks
        self._log = log
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def fetch(
        self, route: Route, path: str, blob: Descriptor, repository: str, tell: Tell | None = None
    ) -> None:
        """Return when the repository has the blob. When nobody waits any more, it is given up.

        Raises NotFoundError, UnavailableError, RateLimitedError, InvalidRequestError, DiskFullError.
        """
        if await asyncio.to_thread(self._files.renew, repository, blob.digest):
            return
        if blob.size > MOST_BLOB_BYTES:
            raise InvalidRequestError(f"blob {blob.digest} is larger than {MOST_BLOB_BYTES} bytes")
        key = (route.key, blob.digest)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(route, path, blob, repository)
            flight.task = self._tasks.create_task(self._fly(key, flight))
        await self._wait(flight, tell)
        if flight.error is not None:
            raise flight.error
        if not self._files.path_of(blob.digest).exists():
            raise UnavailableError(f"blob {blob.digest}: the image store ends")
        await asyncio.to_thread(self._files.link, repository, blob.digest)

    async def _wait(self, flight: _Flight, tell: Tell | None) -> None:
        task = flight.task
        if task is None:
            raise RuntimeError("a flight without a task")
        flight.waiters += 1
        told = -1
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_TELL_EVERY_S)
                if tell is not None and flight.current != told:
                    told = flight.current
                    await tell(told)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not task.done():
                self._flights.pop((flight.route.key, flight.blob.digest), None)
                task.cancel()

    async def _fly(self, key: tuple[str, str], flight: _Flight) -> None:
        limit_s = _SETTLE_S + flight.blob.size / _LEAST_BYTES_PER_S
        try:
            async with self._slots, asyncio.timeout(limit_s):
                await self._download(flight)
        except LabfleetError as exc:
            flight.error = exc
        except NoneHasItError as exc:
            name = core.remote_paths(flight.route.registry, flight.path)[0]
            flight.error = core.verdict(f"{name}@{flight.blob.digest}", name, exc.troubles)
        except TimeoutError:
            flight.error = UnavailableError(
                f"blob {flight.blob.digest} did not come in {limit_s} s"
            )
        except Exception as exc:  # noqa: BLE001 - the top of a task: told to all who wait, logged once
            self._log.exception("fetch.failed", digest=flight.blob.digest)
            flight.error = InternalError(f"blob {flight.blob.digest}: {exc}")
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]

    # -- one blob

    def _aside(self, route: Route, digest: str) -> Path:
        """Where its bytes are kept: the same place after a restart."""
        whose = hashlib.sha256(route.key.encode()).hexdigest()[:16]
        return self._directory / f"fetch-{digest.removeprefix('sha256:')}-{whose}"

    async def _download(self, flight: _Flight) -> None:
        digest = Digest(flight.blob.digest)
        aside = self._aside(flight.route, digest)
        part = await asyncio.to_thread(PartialBlob, aside, digest, flight.blob.size)
        try:
            await self._complete(flight, part)
        finally:
            await asyncio.to_thread(part.close)
        await asyncio.to_thread(self._files.adopt, flight.repository, aside, digest)

    async def _complete(self, flight: _Flight, part: PartialBlob) -> None:
        """Try upstreams, the well ones first, until the blob is whole. Raises NoneHasItError."""
        in_vain: dict[str, int] = {}
        last: dict[str, tuple[Upstream, UpstreamError]] = {}
        absent: set[str] = set()
        for _ in itertools.repeat(None, _MOST_TRIES):
            left = [
                each
                for each in self._upstreams.ordered(flight.route)
                if each.name not in absent and in_vain.get(each.name, 0) < _MOST_IN_VAIN
            ]
            if not left:
                break
            upstream, before = left[0], part.size
            if in_vain.get(upstream.name):
                await asyncio.sleep(_PAUSE_S * 2 ** in_vain[upstream.name])
            try:
                await self._read(flight, part, upstream)
            except UpstreamError as exc:
                last[upstream.name] = (upstream, exc)
                self._upstreams.failed(upstream, exc)
                if exc.trouble in (Trouble.ABSENT, Trouble.DENIED):
                    absent.add(upstream.name)
                has_moved = part.size > before
                in_vain[upstream.name] = 0 if has_moved else in_vain.get(upstream.name, 0) + 1
                self._log.info(
                    "fetch.interrupted",
                    digest=part.digest,
                    upstream=upstream.name,
                    at=part.size,
                    error=exc.message,
                )
            else:
                return
        troubles: Troubles = list(last.values())
        raise NoneHasItError(troubles)

    async def _read(self, flight: _Flight, part: PartialBlob, upstream: Upstream) -> None:
        """Read what is missing, check it. Raises UpstreamError, LabfleetError."""
        names = core.remote_paths(flight.route.registry, flight.path)
        for number, name in enumerate(names):
            try:
                if part.size < part.total:
                    await self._receive(flight, part, upstream, name)
                break
            except UpstreamError as exc:
                is_last = number == len(names) - 1
                if is_last or exc.trouble not in (Trouble.ABSENT, Trouble.DENIED):
                    raise
        try:
            await asyncio.to_thread(part.finish)
        except DigestMismatchError as exc:
            raise UpstreamError(Trouble.FAILED, exc.message) from exc

    async def _receive(
        self, flight: _Flight, part: PartialBlob, upstream: Upstream, name: str
    ) -> None:
        began = part.size
        async with self._upstreams.client.blob(upstream, name, part.digest, part.size) as found:
            if found.first != part.size:
                await asyncio.to_thread(part.restart)
                began = 0
            waiting = bytearray()
            try:
                async for data in found.chunks:
                    waiting += data
                    flight.current = part.size + len(waiting)
                    if flight.current > part.total:
                        waiting.clear()
                        await asyncio.to_thread(part.restart)
                        raise UpstreamError(
                            Trouble.FAILED, f"it sends more than the {part.total} bytes"
                        )
                    if len(waiting) >= _BLOCK:
                        block, waiting = waiting, bytearray()
                        await asyncio.to_thread(part.append, bytes(block))
            finally:
                if waiting:
                    await asyncio.to_thread(part.append, bytes(waiting))
        if part.size < part.total:
            raise UpstreamError(Trouble.FAILED, f"it ended after {part.size} of {part.total} bytes")
        self._upstreams.succeeded(upstream, part.size - began)
