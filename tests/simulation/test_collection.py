"""Pushes, pulls, names, deletions, containers and damage in every order that chance finds, beside the collector.

The catalogue, the collector and the blobs' files are the real ones; the fleet's memory is a fake whose writes
take effect some turns later, and time is the test's. Every wait, and every step of the collector's own thread, is
a place where the others may work. One seed is one order of events.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, cast

import pytest

from labfleet_chassis import logs
from labfleet_chassis.caller import acting_for
from labfleet_chassis.store import ExistsError
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.layers import Layers
from labfleet_image_store.core.quotas import Quota
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_image_store.service.collector import Collector
from labfleet_image_store.service.quotas import Quotas
from labfleet_image_store.service.sharing import Sharing
from labfleet_image_store.service.tenant_rules import TenantRules
from labfleet_proto.buckets import manifest_key
from labfleet_proto.errors import NotFoundError
from labfleet_proto.ids import OPERATORS, Digest
from labfleet_proto.images import ImagePin

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
GRACE_S = 100.0
STEPS = 40
REPOSITORIES = ("a", "b", "c")


def digest_of(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


class Memory:
    """A bucket and its mirror in one: writes are seen some turns after they took effect."""

    def __init__(self, world: "World") -> None:
        self.entries: dict[str, Any] = {}
        self.bucket = self
        self.revision = 0
        self._truth: dict[str, Any] = {}
        self._written = 0
        self._world = world
        self._late: list[tuple[str, Any]] = []

    def get(self, key: str) -> Any:
        return self.entries.get(key)

    def values(self) -> list[Any]:
        return list(self.entries.values())

    async def create(self, key: str, value: Any) -> int:
        await self._world.turn()
        if key in self._truth:
            raise ExistsError(key)
        return await self._write(key, value)

    async def put(self, key: str, value: Any) -> int:
        await self._world.turn()
        return await self._write(key, value)

    async def delete(self, key: str) -> None:
        await self._world.turn()
        await self._write(key, None)

    async def _write(self, key: str, value: Any) -> int:
        if value is None:
            self._truth.pop(key, None)
        else:
            self._truth[key] = value
        self._written += 1
        mine = self._written
        self._late.append((key, value))
        await self._world.turn()
        return mine

    def show(self) -> None:
        """The mirror hears of the next write."""
        if self._late:
            key, value = self._late.pop(0)
            self.revision += 1
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    async def wait_for(self, revision: int) -> None:
        while self.revision < revision:
            await self._world.turn()

    async def changed(self) -> None:
        await self._world.turn()


class Preempted:
    """The lock of the files: whoever comes for it in the collector's thread may find others at work."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1 and self._world.in_thread and self._world.chance.random() < 0.3:
            self._world.in_thread = False
            self._depth = 0
            self._world.intrude()
            self._depth = 1
            self._world.in_thread = True

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self._depth -= 1


class World:
    """One store, its users, and what they were promised."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_s = 1_000_000.0
        self.in_thread = False
        self.may_flush = False
        self.is_quiet = False
        self.files = BlobFiles(directory, lambda: self.now_s)
        self.files._keeping = cast("Any", Preempted(self))
        self.tags, self.manifests, self.containers = Memory(self), Memory(self), Memory(self)
        clock = SimpleNamespace(now_ns=lambda: int(self.now_s * 1e9))
        log = logs.get("test")
        self.catalogue = Catalogue(
            self.files, cast("Any", self.tags), cast("Any", self.manifests), cast("Any", clock),
            frozenset(), self._rules(clock),
        )  # fmt: skip
        held = SimpleNamespace(values=self._held)
        self.collector = Collector(
            self.catalogue,
            Layers(directory, self.files),
            cast("Any", held),
            cast("Any", clock),
            log,
        )
        self.pool = [self.chance.randbytes(self.chance.randint(1, 50)) for _ in range(6)]
        self.images: dict[tuple[str, str], bytes] = {}
        """Manifest by repository and tag, as acknowledged."""
        self.known: dict[str, bytes] = {digest_of(each): each for each in self.pool}
        self.promises: dict[tuple[str, str], float] = {}
        """Uploads that were acknowledged: until when they are kept without a manifest."""
        self.busy: dict[int, float] = {}
        """Since when each operation goes on."""
        self.creating: set[int] = set()
        self.writing: set[str] = set()
        """Repositories whose user is at work."""
        self._number = 0

    def _rules(self, clock: Any) -> TenantRules:
        """Nothing is shared, nobody has a quota."""
        sharing = Sharing(cast("Any", SimpleNamespace(listen=lambda _heard: None)))
        quotas = Quotas(self.files, cast("Any", self.manifests), lambda _tenant: Quota(), clock)
        return TenantRules(sharing, quotas)

    async def turn(self) -> None:
        """Let others work."""
        for _ in range(self.chance.randint(0, 3)):
            await asyncio.sleep(0)

    async def to_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        """A thread, of the collector's or of a request's, seen by the others step by step."""
        await self.turn()
        self.in_thread = True
        try:
            return work(*args)
        finally:
            self.in_thread = False

    def flush(self, _descriptor: int) -> None:
        """No power is cut here; whoever waits for the disk must not let everybody wait."""
        assert self.in_thread or self.may_flush, "a flush on the event loop"

    @contextlib.contextmanager
    def a_thread_of_another(self) -> Iterator[None]:
        """What is done at once here and in a thread in truth."""
        before, self.may_flush = self.may_flush, True
        try:
            yield
        finally:
            self.may_flush = before

    async def _held(self) -> dict[str, Any]:
        await self.turn()
        return dict(self.containers._truth)

    # -- what users do

    def intrude(self) -> None:
        """What a request does without a wait while the collector's thread goes on."""
        if self.is_quiet:
            return
        repository = self.chance.choice(REPOSITORIES)
        blob = self.chance.choice(self.pool)
        if self.chance.random() < 0.5:
            self.upload(repository, blob)
        else:
            self.erase_upload(repository, digest_of(blob))

    def erase_upload(self, repository: str, digest: str) -> None:
        """DELETE of a blob that no image of the repository needs, nor one that is on its way."""
        if (repository, digest) not in self.needed() and repository not in self.writing:
            with self.a_thread_of_another():
                self.files.unlink(repository, digest)
            self.promises.pop((repository, digest), None)

    def upload(self, repository: str, blob: bytes) -> None:
        """As clients do: ask, mount, or send."""
        digest = digest_of(blob)
        source = self.chance.choice(REPOSITORIES)
        with self.a_thread_of_another():
            if self.files.has(repository, digest) or self.files.has(source, digest):
                self.files.link(repository, digest)
            else:
                self.files.put(repository, blob)
        self.promises[repository, digest] = self.now_s + GRACE_S

    @contextlib.asynccontextmanager
    async def _operation(self) -> Any:
        self._number += 1
        number = self._number
        self.busy[number] = self.now_s
        try:
            yield number
        finally:
            del self.busy[number]

    async def push(self, repository: str) -> None:
        layers = self.chance.sample(self.pool, self.chance.randint(1, 3))
        config = self.chance.randbytes(20)
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self._about(CONFIG, config),
            "layers": [self._about(LAYER, each) for each in layers],
        }).encode()  # fmt: skip
        self.known |= {digest_of(each): each for each in (config, manifest)}
        tag = self.chance.choice("xy")
        while True:
            for blob in (config, *layers):
                self.upload(repository, blob)
                await self.turn()
            async with self._operation():
                try:
                    await self.catalogue.put_manifest(repository, tag, manifest, MANIFEST)
                except NotFoundError:
                    continue  # damaged or deleted meanwhile: sent again
            break
        before = self.images.get((repository, tag))
        self.images[repository, tag] = manifest
        await self._drop(repository, before)

    def _about(self, kind: str, data: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    async def delete(self, repository: str) -> None:
        tag = self.chance.choice("xy")
        manifest = self.images.pop((repository, tag), None)
        if manifest is not None:
            await self.catalogue.untag(repository, tag)
            await self._drop(repository, manifest)

    async def _drop(self, repository: str, manifest: bytes | None) -> None:
        own = [each for (name, _), each in self.images.items() if name == repository]
        if manifest is not None and manifest not in own:
            await self.catalogue.drop_manifest(repository, digest_of(manifest))

    async def name(self, repository: str) -> None:
        """Give an image of anybody's a name here."""
        found = [key for key in self.images if key[0] != repository]
        if not found:
            return
        source, tag = self.chance.choice(sorted(found))
        manifest = self.images[source, tag]
        record = self.manifests.get(manifest_key(source, digest_of(manifest)))
        if record is None or (repository, tag) in self.images:
            return
        async with self._operation():
            try:
                await self.catalogue.copy(record, repository)
            except NotFoundError:
                return
            await self.catalogue.tag(repository, tag, digest_of(manifest))
        self.images[repository, tag] = manifest

    async def create(self, _repository: str) -> None:
        """A container of an image; its record comes a while after the image was found."""
        if not self.images:
            return
        repository, tag = self.chance.choice(sorted(self.images))
        manifest = self.images[repository, tag]
        async with self._operation() as number:
            self.creating.add(number)
            for _ in range(5):
                await self.turn()
            pin = ImagePin(
                reference=repository, image_id=Digest(json.loads(manifest)["config"]["digest"]),
                repository=repository, manifest_digest=digest_of(manifest), layers=(),
            )  # fmt: skip
            await self.containers.put(f"c{number}", SimpleNamespace(image=pin))
            self.creating.discard(number)

    async def remove(self, _repository: str) -> None:
        if self.containers._truth:
            await self.containers.delete(self.chance.choice(sorted(self.containers._truth)))

    async def damage(self, _repository: str) -> None:
        """A disk changes a blob, and the scrubber finds it."""
        every = self.files.digests()
        if every:
            path = self.files.path_of(self.chance.choice(every))
            with self.a_thread_of_another():
                self.files.condemn(f"sha256:{path.name}", path.stat().st_ino)

    async def litter(self, repository: str) -> None:
        data = self.chance.randbytes(8)
        self.known[digest_of(data)] = data
        self.upload(repository, data)

    async def check(self, _repository: str) -> None:
        """Nothing that is referred to is lost; what is there is whole."""
        for repository, digest in self.needed() | {
            key for key, until_s in self.promises.items() if until_s > self.now_s
        }:
            assert self.files.links.refers(repository, digest), (repository, digest)
            is_damaged = self.files.quarantine.has(digest)
            assert is_damaged or self.files.path_of(digest).read_bytes() == self.known[digest]

    def needed(self) -> set[tuple[str, str]]:
        """What images and containers need, by repository."""
        found = set()
        for (repository, _), manifest in self.images.items():
            document = json.loads(manifest)
            found.add((repository, digest_of(manifest)))
            found |= {(repository, each["digest"]) for each in document["layers"]}
            found.add((repository, document["config"]["digest"]))
        for container in self.containers._truth.values():
            pin = container.image
            found |= {(pin.repository, pin.image_id), (pin.repository, pin.manifest_digest)}
        return found

    # -- the loops

    async def user(self, repository: str) -> None:
        steps: list[Callable[[str], Awaitable[None]]] = [
            self.push, self.push, self.delete, self.name, self.create, self.remove, self.damage,
            self.litter, self.check, self.check,
        ]  # fmt: skip
        for _ in range(STEPS):
            self.writing.add(repository)
            await self.chance.choice(steps)(repository)
            self.writing.discard(repository)
            await self.turn()

    async def collect(self) -> None:
        """Between two passes a container that is being created is recorded: that takes less than minutes."""
        while True:
            await self.collector.collect(GRACE_S)
            open_ones = set(self.creating)
            while open_ones & self.creating:
                await asyncio.sleep(0)
            await self.turn()

    async def pass_time(self) -> None:
        """Mirrors hear, and time goes on, yet never so far that one request takes half the grace."""
        while True:
            for memory in (self.tags, self.manifests, self.containers):
                if self.chance.random() < 0.7:
                    memory.show()
            step_s = self.chance.random() * GRACE_S / 4
            if all(self.now_s + step_s - since_s < GRACE_S / 2 for since_s in self.busy.values()):
                self.now_s += step_s
            await asyncio.sleep(0)

    async def run(self) -> None:
        with acting_for(OPERATORS):
            await self._run()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(self.collect()), tasks.create_task(self.pass_time())]
            await asyncio.gather(*(self.user(each) for each in REPOSITORIES))
            await self.check("")
            for repository in REPOSITORIES:
                for tag in "xy":
                    if (repository, tag) in self.images:
                        manifest = self.images.pop((repository, tag))
                        await self.catalogue.untag(repository, tag)
                        await self._drop(repository, manifest)
            while self.containers._truth:
                await self.remove("")
            for loop in loops:
                loop.cancel()
        self.is_quiet = True
        for _ in range(3):
            self.now_s += GRACE_S + 1
            await self.collector.collect(GRACE_S)


def left(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def _interleave(directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    world = World(directory, seed)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "to_thread", world.to_thread)
            patch.setattr(os, "fsync", world.flush)
            asyncio.run(world.run())
        assert left(directory) == []
    except BaseException as exc:
        exc.add_note(f"seed {seed}")
        raise


# 1311: an image is deleted while a container of it is being created, and a pass comes before its record.
@pytest.mark.parametrize("seed", [*range(12), 1311])
def test_nothing_needed_is_lost_and_all_else_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    _interleave(tmp_path, monkeypatch, seed)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block", range(10))
def test_nothing_needed_is_lost_in_many_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    for seed in range(1000 + block * 50, 1050 + block * 50):
        folder = tmp_path / str(seed)
        folder.mkdir()
        _interleave(folder, monkeypatch, seed)
