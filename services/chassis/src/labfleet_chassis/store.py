"""The fleet's memory: typed buckets over JetStream key-value. `mirror` keeps copies of them.

Facts that shape this module (nats-server 2.15, nats-py 2.16): decide only by compare-and-set on the
revision that was read; reads are not read-your-writes.

A server that is killed rebuilds its streams from files, and forgets explicit removals when it is
killed again soon after (seen with 2.11 to 2.15): what a rollup, a purge or an expired marker had
taken away would be there again. What it never forgets is that of one key only the newest message
counts. So a deletion is a message like any other, an empty one that stays; nothing is ever removed
but by that rule, or by the age that a whole bucket has. `labfleet_chassis.compaction` writes a memory
that consists mostly of deletions anew, while nobody uses it (ADR 0016).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext, api
from nats.js.kv import KV_DEL, KeyValue

from labfleet_chassis.metrics import STORE_WRITE_DURATION
from labfleet_chassis.watching import FirstPass, is_gone, next_change
from labfleet_proto.buckets import BucketDef
from labfleet_proto.errors import ConflictError, StaleError, UnavailableError
from labfleet_proto.message import Message

M = TypeVar("M", bound=Message)

_HISTORY = 1
_GONE_KEPT = 4096
_WRONG_LAST_SEQUENCE = (10071, 10164)
_TICK_S = 0.5


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
        self._gone: dict[str, int] = {}
        """Revisions of deletions made here: who creates such a key anew need not ask for it."""

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
                    return await self._publish(key, data, revision=self._gone.pop(key, 0))
                except nats.js.errors.KeyWrongLastSequenceError:
                    gone = await self._gone_at(key)
                    if gone is None:
                        raise
                    return await self._publish(key, data, revision=gone)
        except StaleError as exc:
            raise ExistsError(f"create {key} in {self.definition.name}: it exists") from exc

    async def _gone_at(self, key: str) -> int | None:
        """Revision of a key's deletion, 0 if it never was there; None if it has a value."""
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

        Raises StaleError, UnavailableError.
        """
        with self._writing(f"delete {key}"):
            gone_at = await self._publish(key, b"", revision=revision, is_deletion=True)
        if len(self._gone) >= _GONE_KEPT:
            del self._gone[next(iter(self._gone))]
        self._gone[key] = gone_at

    async def _publish(
        self, key: str, data: bytes, *, revision: int | None = None, is_deletion: bool = False
    ) -> int:
        """Write a value or a deletion; return its revision once it is durable."""
        headers = {"KV-Operation": KV_DEL} if is_deletion else {}
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        try:
            done = await self._js.publish(
                f"$KV.{self.definition.name}.{key}",
                data,
                headers=headers or None,
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

    async def _last_revision_of(self, keys: str) -> int:
        """Revision of the newest write to the keys of a pattern; 0 if there was none."""
        name = self.definition.name
        with translated(f"read the position of {keys} in {name}"):
            try:
                last = await self._js.get_last_msg(f"KV_{name}", f"$KV.{name}.{keys}")
            except nats.js.errors.NotFoundError:
                return 0
        return last.seq or 0

    async def values(self) -> dict[str, M]:
        """Read all keys. Raises UnavailableError."""
        entries = await self._entries(">", await self.last_revision())
        return {entry.key: entry.value for entry in entries}

    async def entries(self, keys: str) -> list[Entry[M]]:
        """Read the keys of a pattern such as `token.*`, in the order of their newest writes.

        All that was written before the call is seen. Raises UnavailableError.
        """
        return await self._entries(keys, await self._last_revision_of(keys))

    async def _entries(self, keys: str, position: int) -> list[Entry[M]]:
        found: dict[str, Entry[M]] = {}
        sync = FirstPass(position)
        is_over = not position
        async with self.watch(keys) as watcher:
            while not is_over:
                try:
                    async with asyncio.timeout(_TICK_S):
                        change = await next_change(watcher)
                except TimeoutError:
                    is_over = sync.is_marked
                    continue
                if change is not None:
                    found.pop(change.key, None)
                    if change.value and not is_gone(change):
                        value = self.definition.model.model_validate_json(change.value)
                        found[change.key] = Entry(change.key, value, change.revision or 0)
                is_over = sync.take(change)
        return list(found.values())

    @contextlib.asynccontextmanager
    async def watch(self, keys: str = ">") -> AsyncIterator[KeyValue.KeyWatcher]:
        """Watch all keys, or those of a pattern; for `Mirror`. Raises UnavailableError."""
        with translated(f"watch {self.definition.name}"):
            watcher = await self._kv.watch(keys)
        try:
            yield watcher
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await watcher.stop()  # type: ignore[no-untyped-call]


async def open_bucket(js: JetStreamContext, definition: BucketDef[M]) -> Bucket[M]:
    """Open the bucket, making it if it is not there. Raises UnavailableError."""
    config = api.KeyValueConfig(
        bucket=definition.name,
        history=_HISTORY,
        ttl=definition.ttl_s or None,
        storage=api.StorageType.FILE,
        direct=True,
    )
    with translated(f"open bucket {definition.name}"):
        try:
            kv = await js.key_value(definition.name)
            await keep_newest_only(js, kv)
        except nats.js.errors.NotFoundError:
            kv = await js.create_key_value(config)
    return Bucket(kv, js, definition)


async def keep_newest_only(js: JetStreamContext, kv: KeyValue) -> None:
    """Bring a bucket that an older Labfleet made to the rule of this one."""
    status = await kv.status()
    if status.history == _HISTORY:
        return
    config = status.stream_info.config
    config.max_msgs_per_subject = _HISTORY
    await js.update_stream(config)
