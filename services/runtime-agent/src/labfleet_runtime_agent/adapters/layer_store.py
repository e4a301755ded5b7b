"""Layers of images, unpacked once per host.

A layer's directory is named by its diff id and is complete or absent: it is unpacked aside, flushed
and renamed. Nothing in it depends on the layers below, so images share layers by content.

An image's config says which diff id its blob has, and whoever made the image may lie. So a layer that is
here is used for a blob only after that very blob was fetched through the image's repository, and had that
content: else a tenant could run the layer of another by knowing its diff id.
"""

import asyncio
import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from labfleet_chassis.durable_files import flush_directory
from labfleet_chassis.logs import Log
from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_proto.errors import (
    DigestMismatchError,
    DiskFullError,
    LabfleetError,
    TransientError,
    UnavailableError,
)
from labfleet_proto.ids import Digest
from labfleet_proto.images import ImagePin, LayerRef
from labfleet_proto.layers import BlobState, LayerCopy
from labfleet_runtime_agent.adapters import kernel, unpacking
from labfleet_runtime_agent.adapters.blob_cache import BlobCache
from labfleet_runtime_agent.adapters.growing_blob import GrowingBlob
from labfleet_runtime_agent.adapters.layer_copies import LayerCopies
from labfleet_runtime_agent.adapters.layer_download import Attempt, LayerDownload
from labfleet_runtime_agent.adapters.unpacking import Unpack
from labfleet_runtime_agent.core.eviction import Cached
from labfleet_runtime_agent.metrics import LAYER_LIES

_AT_ONCE = 3
_UNPACK_LIMIT_S = 1800.0
_DISK_RESERVE_BYTES = 1 << 30
_TRIES_WITH_PEERS = 2


class LayerStore:
    """The host's layers, below `<state>/layers`, which no container's user can enter."""

    def __init__(
        self,
        state_dir: Path,
        download: LayerDownload,
        blobs: BlobCache,
        copies: LayerCopies,
        log: Log,
        unpack: Unpack = unpacking.unpack,
    ) -> None:
        self._dir = state_dir / "layers"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._dir.chmod(0o700)
        self._aside = state_dir / "layers.new"
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(mode=0o700)
        self._proofs = state_dir / "layers.proved"
        """A file for each pair; its time of change is when the layer was last used."""
        self._proofs.mkdir(exist_ok=True, mode=0o700)
        self._proved = {path.name for path in self._proofs.iterdir()}
        """Pairs of blob and content that were seen to belong together."""
        self._download = download
        self.blobs = blobs
        self._copies = copies
        self._unpack = unpack
        copies.truth, copies.there = self._copy_here, self._there
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._locks: dict[Digest, asyncio.Lock] = {}
        self._held: Counter[str] = Counter()
        """Names of layers that somebody is making present."""
        self._used: set[str] = set()
        """Names of those used since the last `note_use`."""
        self._log = log
        self.make_room: Callable[[int], Awaitable[bool]] = _no_room
        """Evicts until so much is free, and says whether it is; set by whoever knows what is in use."""

    @property
    def home(self) -> Path:
        """Directory of the unpacked layers."""
        return self._dir

    def path_of(self, layer: LayerRef) -> Path:
        """Directory of an unpacked layer, present or not."""
        return self._dir / _name(layer)

    async def ensure(self, pin: ImagePin) -> list[Path]:
        """Make all layers present; return their directories, base first.

        Each layer is fetched and unpacked once, however many containers wait for it. None goes until
        all are present; from then on it is the caller's to be known as their user.

        Raises:
            DigestMismatchError: the bytes do not match their names.
            DiskFullError, UnavailableError: may succeed later.
        """
        missing = [layer for layer in pin.layers if not self.is_here(layer)]
        self._used.update(_name(layer) for layer in pin.layers)
        if missing:
            with self._holding(pin.layers):
                await self._fetch_all(pin.repository, list(dict.fromkeys(missing)))
        return [self.path_of(layer) for layer in pin.layers]

    @contextlib.contextmanager
    def _holding(self, layers: Sequence[LayerRef]) -> Iterator[None]:
        names = [_name(layer) for layer in layers]
        self._held.update(names)
        try:
            yield
        finally:
            self._held -= Counter(names)

    def is_here(self, layer: LayerRef) -> bool:
        """Whether containers can start without fetching it."""
        return _pair(layer) in self._proved and self.path_of(layer).is_dir()

    async def _fetch_all(self, repository: str, layers: list[LayerRef]) -> None:
        try:
            async with TaskGroup() as tasks:
                for layer in layers:
                    tasks.create_task(self._fetch_once(repository, layer))
        except ExceptionGroup as group:  # not except*: that would wrap what is raised here
            raise group.exceptions[0] from None

    async def _fetch_once(self, repository: str, layer: LayerRef) -> None:
        lock = self._locks.setdefault(layer.diff_id, asyncio.Lock())
        async with lock, self._slots:
            if not self.is_here(layer):
                await self._fetch(repository, layer)

    async def _fetch(self, repository: str, layer: LayerRef) -> None:
        """Fetch from the best sources; what peers falsified comes from others, in the end from the store."""
        for number in range(_TRIES_WITH_PEERS + 1):
            await self._require_room(layer)
            attempt = Attempt(with_peers=number < _TRIES_WITH_PEERS)
            try:
                await self._try(repository, layer, attempt)
                break
            except LabfleetError as exc:
                if isinstance(exc, TransientError):
                    raise
                if attempt.is_of_before and number < _TRIES_WITH_PEERS:
                    self.blobs.drop(layer.digest)
                    continue
                if not attempt.heard:
                    raise
                LAYER_LIES.inc()
                self._download.peers.distrust(attempt.heard)
                self._log.warning(
                    "layer.falsified",
                    digest=layer.digest,
                    hosts=sorted(attempt.heard),
                    error=exc.message,
                )
        self._log.info("layer.ready", digest=layer.digest, bytes=layer.size_bytes)

    async def _require_room(self, layer: LayerRef) -> None:
        wanted = layer.size_bytes * 4 + _DISK_RESERVE_BYTES
        free = shutil.disk_usage(self._dir).free
        if free < wanted and not await self.make_room(wanted):
            raise DiskFullError(f"fetch layer {layer.digest}: only {free >> 20} MiB free")

    async def _try(self, repository: str, layer: LayerRef, attempt: Attempt) -> None:
        aside = self._aside / _name(layer)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o755)
        is_kept = layer.digest in self.blobs.whole()
        blob = (
            self.blobs.kept(layer.digest)
            if is_kept
            else self.blobs.begin(layer.digest, layer.size_bytes)
        )
        attempt.is_claimed, attempt.is_of_before = blob.is_served, blob.has > 0
        is_good = is_left = False
        try:
            async with asyncio.timeout(_UNPACK_LIMIT_S):
                answer = await self._fill_and_unpack(blob, repository, layer, attempt, aside)
            for name, wanted in (("digest", layer.digest), ("diff_id", layer.diff_id)):
                if answer[name] != wanted:
                    raise DigestMismatchError(
                        f"layer {layer.digest}: its {name} is {answer[name]}, not {wanted}"
                    )
            if not self.path_of(layer).is_dir():
                await asyncio.to_thread(_publish, aside, self.path_of(layer))
            (self._proofs / _pair(layer)).touch()
            self._proved.add(_pair(layer))
            is_good = True
        except (asyncio.CancelledError, UnavailableError):
            is_left = True
            raise
        finally:
            if is_left and not is_kept:
                self.blobs.leave(blob)
            elif not is_kept:
                self.blobs.end(blob, is_good=is_good)
            self._copies.changed(layer.digest)
            shutil.rmtree(aside, ignore_errors=True)

    async def _fill_and_unpack(
        self,
        blob: GrowingBlob,
        repository: str,
        layer: LayerRef,
        attempt: Attempt,
        aside: Path,
    ) -> dict[str, str]:
        """Unpack a blob while it comes; return its digests."""
        try:
            async with TaskGroup() as tasks:
                unpacking = tasks.create_task(self._unpack(blob, layer, aside))
                await self._download.fill(blob, repository, layer, attempt)
        except ExceptionGroup as group:
            raise first_of(group) from None
        return unpacking.result()

    # -- what is here, and what goes

    def here(self) -> dict[str, Digest]:
        """Names of the layers that are here, each with the digest of one blob of it."""
        pairs = (pair.split("-") for pair in self._proved)
        return {diff: Digest(f"sha256:{digest}") for digest, diff in pairs}

    def _copy_here(self, digest: Digest) -> LayerCopy | None:
        """What this host tells the others of a layer."""
        prefix = f"{digest.removeprefix('sha256:')}-"
        is_unpacked = any(pair.startswith(prefix) for pair in self._proved)
        blob = self.blobs.state_of(digest)
        if blob is BlobState.NONE and not is_unpacked:
            return None
        return LayerCopy(host=self._copies.host, digest=digest, blob=blob, is_unpacked=is_unpacked)

    def _there(self) -> set[Digest]:
        unpacked = {Digest(f"sha256:{pair.partition('-')[0]}") for pair in self._proved}
        return unpacked | self.blobs.whole() | self.blobs.growing()

    def note_use(self, in_use: set[str]) -> None:
        """Keep on the disk that these names, and those used since the last time, are used now."""
        used, self._used = self._used | in_use, set()
        for pair in self._proved:
            if pair.partition("-")[2] in used:
                with contextlib.suppress(OSError):
                    os.utime(self._proofs / pair)

    def cached(self) -> list[Cached]:
        """The layers that nobody is making present at the moment, each with the time of its last use."""
        used = {path.name: 0.0 for path in self._dir.iterdir()}  # of a crash, without a proof
        for pair in self._proved:
            name = pair.partition("-")[2]
            with contextlib.suppress(FileNotFoundError):
                at_s = (self._proofs / pair).stat().st_mtime
                used[name] = max(used.get(name, 0.0), at_s)
        return [Cached(name, at_s) for name, at_s in used.items() if not self._held[name]]

    def take_away(self, name: str) -> Path:
        """Make a layer not be here any more, at once; the caller deletes what is returned."""
        gone = self._aside / f"{name}.gone"
        for pair in [each for each in self._proved if each.partition("-")[2] == name]:
            self._proved.discard(pair)
            (self._proofs / pair).unlink(missing_ok=True)
            self._copies.changed(Digest(f"sha256:{pair.partition('-')[0]}"))
        with contextlib.suppress(FileNotFoundError):
            (self._dir / name).rename(gone)
        return gone

    def progress(self, pin: ImagePin) -> tuple[int, int]:
        """Compressed bytes of an image's layers, and how many of them are here."""
        layers = set(pin.layers)
        here = sum(
            layer.size_bytes if self.is_here(layer) else self.blobs.bytes_of_growing(layer.digest)
            for layer in layers
        )
        return sum(layer.size_bytes for layer in layers), here


async def _no_room(_wanted_bytes: int) -> bool:
    return False


def _name(layer: LayerRef) -> str:
    """Name of a layer's directory."""
    return layer.diff_id.removeprefix("sha256:")


def _pair(layer: LayerRef) -> str:
    """Name of the proof that a blob has this content."""
    digest, diff_id = layer.digest, layer.diff_id
    return f"{digest.removeprefix('sha256:')}-{diff_id.removeprefix('sha256:')}"


def _publish(aside: Path, final: Path) -> None:
    """Flush a layer and give it its name."""
    kernel.flush_file_system(aside)
    aside.rename(final)
    flush_directory(final.parent)
