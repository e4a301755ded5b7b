"""The fleet's memory: typed buckets over JetStream key-value, and mirrors of them.

Facts that shape this module (nats-server 2.15, nats-py 2.16): decide only by compare-and-set on the
revision that was read; reads are not read-your-writes; a watch may deliver twice, or die silently
with the server. So a mirror compares its position with the stream's when it hears nothing, and
re-reads everything when they differ.

A server that is killed rebuilds its streams from files, in which only an explicit removal is written
down, not one by a stream's limit: once the marker of a deletion has expired, an older value that a
limit took away would be there again (nats-server issue 8505). So every write of a value that does
not expire rolls its key up, which removes the older ones explicitly, and the limit is never reached.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext, api
from nats.js.kv import KV_DEL, KV_PURGE, KeyValue

from labfleet_chassis.logs import Log
from labfleet_chassis.metrics import STORE_WRITE_DURATION
from labfleet_proto.buckets import BucketDef
from labfleet_proto.errors import ConflictError, StaleError, UnavailableError
from labfleet_proto.message import Message

M = TypeVar("M", bound=Message)

_MARKER_TTL_S = 300.0
_HISTORY = 8
"""More than one: with one the limit would remove the older value before the rollup does. More than
two: a server that is killed between a write and its rollup leaves one value more."""
_ROLLUP = {"Nats-Rollup": "sub"}
_WRONG_LAST_SEQUENCE = (10071, 10164)
_TICK_S = 0.5
_TICKS_TO_DOUBT = 14
"""Seven seconds: longer than the pause between a host's signs of life."""


@dataclass(frozen=True)
class Entry(Generic[M]):
    """A value and the revision it was read at."""

    key: str
    value: M
    revision: int


class ExistsError(ConflictError):
    """A create-only key is taken."""

    code = "exists"


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the client library's failures into ours, naming `what` was attempted."""
    try:
        yield
    except nats.js.errors.KeyWrongLastSequenceError as exc:
        raise StaleError(f"{what}: changed meanwhile") from exc
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as exc:
        raise UnavailableError(f"{what}: {str(exc) or type(exc).__name__}") from exc


class Bucket(Generic[M]):
    """One bucket. Values are JSON; every write is acknowledged after it is durable."""

    def __init__(self, kv: KeyValue, js: JetStreamContext, definition: BucketDef[M]) -> None:
        self._kv = kv
        self._js = js
        self.definition = definition

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        outcome = "error"
        try:
            with translated(f"{what} in {self.definition.name}"):
                yield
            outcome = "ok"
        except StaleError:
            outcome = "stale"
            raise
        finally:
            STORE_WRITE_DURATION.labels(self.definition.name, outcome).observe(
                time.perf_counter() - began
            )

    async def get(self, key: str) -> Entry[M] | None:
        """Read the newest value; None if there is none. Raises UnavailableError."""
        with translated(f"read {key} in {self.definition.name}"):
            try:
                found = await self._kv.get(key)
            except nats.js.errors.KeyNotFoundError:  # includes deleted
                return None
        if not found.value:
            return None
        return Entry(
            key, self.definition.model.model_validate_json(found.value), found.revision or 0
        )

    async def create(self, key: str, value: M) -> int:
        """Write a key that must not exist; return its revision.

        Raises ExistsError, UnavailableError.
        """
        data = value.model_dump_json().encode()
        try:
            with self._writing(f"create {key}"):
                try:
                    return await self._publish(key, data, revision=0)
                except nats.js.errors.KeyWrongLastSequenceError:
                    gone = await self._gone_at(key)
                    if gone is None:
                        raise
                    return await self._publish(key, data, revision=gone)
        except StaleError as exc:
            raise ExistsError(f"create {key} in {self.definition.name}: it exists") from exc

    async def _gone_at(self, key: str) -> int | None:
        """Revision of the marker of a deleted key, 0 if that is gone too; None if it has a value."""
        try:
            await self._kv.get(key)
        except nats.js.errors.KeyNotFoundError as exc:
            return (exc.entry.revision or 0) if exc.entry else 0
        return None

    async def update(self, key: str, value: M, revision: int) -> int:
        """Compare-and-set; return the new revision. Raises StaleError, UnavailableError."""
        with self._writing(f"update {key}"):
            return await self._publish(key, value.model_dump_json().encode(), revision=revision)

    async def put(self, key: str, value: M) -> int:
        """Write without comparing: only for keys with one writer. Raises UnavailableError."""
        with self._writing(f"put {key}"):
            return await self._publish(key, value.model_dump_json().encode())

    async def delete(self, key: str, revision: int | None = None) -> None:
        """Delete a key, if `revision` is given only at that revision; absent is success.

        The marker that tells watchers goes by itself after five minutes.
        Raises StaleError, UnavailableError.
        """
        with self._writing(f"delete {key}"):
            await self._publish(key, b"", revision=revision, is_deletion=True)

    async def _publish(
        self, key: str, data: bytes, *, revision: int | None = None, is_deletion: bool = False
    ) -> int:
        """Write a value or a marker; return its revision once it is durable."""
        headers = {} if self.definition.ttl_s else dict(_ROLLUP)
        if is_deletion:
            headers |= {"KV-Operation": KV_PURGE, **_ROLLUP}
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        try:
            done = await self._js.publish(
                f"$KV.{self.definition.name}.{key}",
                data,
                headers=headers,
                msg_ttl=_MARKER_TTL_S if is_deletion else None,
            )
        except nats.js.errors.APIError as exc:
            if exc.err_code in _WRONG_LAST_SEQUENCE:
                raise nats.js.errors.KeyWrongLastSequenceError(description=exc.description) from exc
            raise
        return done.seq

    async def last_revision(self) -> int:
        """Revision of the newest write to the bucket; 0 if it is empty. Raises UnavailableError."""
        with translated(f"read the position of {self.definition.name}"):
            info = await self._js.stream_info(f"KV_{self.definition.name}")
        return int(info.state.last_seq) if info.state.messages else 0

    async def values(self) -> dict[str, M]:
        """Read all keys. Raises UnavailableError."""
        found: dict[str, M] = {}
        sync = _FirstPass(await self.last_revision())
        is_over = False
        async with self.watch() as watcher:
            while not is_over:
                try:
                    async with asyncio.timeout(_TICK_S):
                        change = await _next(watcher)
                except TimeoutError:
                    is_over = sync.is_marked
                    continue
                if change is not None and _is_gone(change):
                    found.pop(change.key, None)
                elif change is not None and change.value:
                    found[change.key] = self.definition.model.model_validate_json(change.value)
                is_over = sync.take(change)
        return found

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[KeyValue.KeyWatcher]:
        """Watch all keys; for `Mirror`. Raises UnavailableError."""
        with translated(f"watch {self.definition.name}"):
            watcher = await self._kv.watchall()
        try:
            yield watcher
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await watcher.stop()  # type: ignore[no-untyped-call]


class _FirstPass:
    """How far a watch has come with what was there when it began.

    The client library marks the end of the pass, but may do so before it has handed on all that the
    server had sent already. So the pass is over when the newest write from before it was seen, too;
    or, should that have been taken away meanwhile, when nothing more comes for a while.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        """Revision of the newest write, read before the watch began."""
        self.keys: set[str] = set()
        self.is_marked = False
        self._top = 0

    def take(self, change: KeyValue.Entry | None) -> bool:
        """Take a change, or the mark (None); whether the pass is over now."""
        if change is None:
            self.is_marked = True
        else:
            self.keys.add(change.key)
            self._top = max(self._top, change.revision or 0)
        return self.is_marked and self._top >= self.position


def _is_gone(change: KeyValue.Entry) -> bool:
    return change.operation in (KV_DEL, KV_PURGE) or not change.value


OnChange = Callable[[str, Entry[M] | None], None]
"""Called with the key and its new entry, or None when it is gone."""


class Mirror(Generic[M]):
    """A bucket folded into a dict, kept up to date by `run`.

    `entries` is only for reading. It converges after any loss of the bus: level-triggered, not a
    log. Listeners hear of every change at least once, and must not block.
    """

    def __init__(self, bucket: Bucket[M], log: Log) -> None:
        self.bucket = bucket
        self.entries: dict[str, Entry[M]] = {}
        self.revision = 0
        self.ready = asyncio.Event()
        self._log = log
        self._heard_s: dict[str, float] = {}
        self._listeners: list[OnChange[M]] = []
        self._moved = asyncio.Event()
        self._resync = asyncio.Event()

    def get(self, key: str) -> M | None:
        """The value of `key`, or None."""
        entry = self.entries.get(key)
        return entry.value if entry else None

    def values(self) -> list[M]:
        """All values, in no order."""
        return [entry.value for entry in self.entries.values()]

    def age_s(self, key: str) -> float:
        """Seconds since this mirror last heard of `key`; infinite if it does not exist."""
        heard = self._heard_s.get(key)
        return float("inf") if heard is None else time.monotonic() - heard

    def listen(self, callback: OnChange[M]) -> None:
        """Call `callback` on every change from now on."""
        self._listeners.append(callback)

    async def changed(self) -> None:
        """Wait for the next change of any key."""
        await self._moved.wait()

    async def wait_for(self, revision: int, timeout_s: float = 5.0) -> None:
        """Wait until the mirror has seen `revision` (read your writes). Raises UnavailableError."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.revision < revision:
                    await self._moved.wait()
        except TimeoutError as exc:
            raise UnavailableError(
                f"the view of {self.bucket.definition.name} is behind: "
                f"at {self.revision}, awaited {revision}"
            ) from exc

    def resync(self) -> None:
        """Re-read everything soon, as after a reconnection."""
        self._resync.set()

    async def run(self) -> None:
        """Follow the bucket for ever; wrap in `supervise`. Raises UnavailableError."""
        self._resync.clear()
        sync: _FirstPass | None = _FirstPass(await self.bucket.last_revision())
        silent_ticks = 0
        async with self.bucket.watch() as watcher:
            while not self._resync.is_set():
                try:
                    async with asyncio.timeout(_TICK_S):
                        change = await _next(watcher)
                except TimeoutError:
                    silent_ticks += 1
                    if sync is not None and sync.is_marked:
                        self._finish(sync)
                        sync = None
                    elif silent_ticks % _TICKS_TO_DOUBT == 0:
                        await self._doubt(is_syncing=sync is not None)
                    continue
                silent_ticks = 0
                if change is not None:
                    self._fold(change)
                if sync is not None and sync.take(change):
                    self._finish(sync)
                    sync = None
        await self._again()

    async def _doubt(self, *, is_syncing: bool) -> None:
        """After a silence: start anew if the bucket has moved on without us."""
        if is_syncing or await self.bucket.last_revision() > self.revision:
            await self._again()

    async def _again(self) -> None:
        """End this round with an error so that `supervise` starts the next one."""
        raise UnavailableError(f"watch of {self.bucket.definition.name} starts anew")

    def _finish(self, sync: "_FirstPass") -> None:
        """Drop what the first pass did not show, then call the mirror ready."""
        for key in self.entries.keys() - sync.keys:
            self._drop(key)
        self.revision = max(self.revision, sync.position)
        self.ready.set()
        self._wake()

    def _fold(self, change: KeyValue.Entry) -> None:
        revision = change.revision or 0
        if _is_gone(change) or not change.value:
            known = self.entries.get(change.key)
            if known is not None and known.revision < revision:
                self._drop(change.key)
        else:
            known = self.entries.get(change.key)
            self._heard_s[change.key] = time.monotonic()
            if known is None or known.revision < revision:
                model = self.bucket.definition.model
                entry = Entry(change.key, model.model_validate_json(change.value), revision)
                self.entries[change.key] = entry
                self._tell(change.key, entry)
        self.revision = max(self.revision, revision)
        self._wake()

    def _drop(self, key: str) -> None:
        self.entries.pop(key, None)
        self._heard_s.pop(key, None)
        self._tell(key, None)

    def _tell(self, key: str, entry: Entry[M] | None) -> None:
        for listener in self._listeners:
            listener(key, entry)

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


async def _next(watcher: KeyValue.KeyWatcher) -> KeyValue.Entry | None:
    """The next change; None once, after the first pass. Raises UnavailableError at the watch's end.

    Not `updates()`, whose limit may swallow a cancellation (bpo-42130): the task would go on for ever.
    """
    try:
        return await anext(watcher)
    except StopAsyncIteration as exc:
        raise UnavailableError("the watch has ended") from exc


async def open_bucket(js: JetStreamContext, definition: BucketDef[M]) -> Bucket[M]:
    """Open the bucket, making it if it is not there. Raises UnavailableError."""
    config = api.KeyValueConfig(
        bucket=definition.name,
        history=1 if definition.ttl_s else _HISTORY,
        ttl=definition.ttl_s or None,
        storage=api.StorageType.FILE,
        direct=True,
    )
    with translated(f"open bucket {definition.name}"):
        try:
            kv = await js.key_value(definition.name)
        except nats.js.errors.NotFoundError:
            kv = await js.create_key_value(config)
    return Bucket(kv, js, definition)
