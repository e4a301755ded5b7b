"""Mirrors: buckets folded into dicts, for everybody who reads much.

A watch may die silently with the server: a mirror compares its position with the stream's when it
hears nothing, and re-reads everything when they differ.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from nats.js.kv import KeyValue

from labfleet_chassis.logs import Log
from labfleet_chassis.store import Bucket, Entry
from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_chassis.watching import FirstPass, is_gone, next_change
from labfleet_proto.errors import UnavailableError
from labfleet_proto.message import Message

M = TypeVar("M", bound=Message)

_TICK_S = 0.5
_TICKS_TO_DOUBT = 14
"""Seven seconds: longer than the pause between a host's signs of life."""

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
        self._sync: FirstPass | None = None
        self._silent_ticks = 0

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
        self._sync = FirstPass(await self.bucket.last_revision())
        self._silent_ticks = 0
        async with self.bucket.watch() as watcher:
            try:
                async with TaskGroup() as tasks:
                    tasks.create_task(self._read(watcher))
                    await self._attend()
            except ExceptionGroup as group:
                raise first_of(group) from None

    async def _read(self, watcher: KeyValue.KeyWatcher) -> None:
        """Fold changes as they come: hundreds a second, so without a limit around each."""
        while True:
            change = await next_change(watcher)
            self._silent_ticks = 0
            if change is not None:
                self._fold(change)
            if self._sync is not None and self._sync.take(change):
                self._finish(self._sync)

    async def _attend(self) -> None:
        """Notice a silence."""
        while not self._resync.is_set():
            await asyncio.sleep(_TICK_S)
            self._silent_ticks += 1
            if self._sync is not None and self._sync.is_marked:
                if self._silent_ticks > 1:  # a whole tick, not the rest of one
                    self._finish(self._sync)
            elif self._silent_ticks % _TICKS_TO_DOUBT == 0:
                await self._doubt(is_syncing=self._sync is not None)
        await self._again()

    async def _doubt(self, *, is_syncing: bool) -> None:
        """After a silence: start anew if the bucket has moved on without us."""
        if is_syncing or await self.bucket.last_revision() > self.revision:
            await self._again()

    async def _again(self) -> None:
        """End this round with an error so that `supervise` starts the next one."""
        raise UnavailableError(f"watch of {self.bucket.definition.name} starts anew")

    def _finish(self, sync: FirstPass) -> None:
        """Drop what the first pass did not show, then call the mirror ready."""
        self._sync = None
        for key in self.entries.keys() - sync.keys:
            self._drop(key)
        self.revision = max(self.revision, sync.position)
        self.ready.set()
        self._wake()

    def _fold(self, change: KeyValue.Entry) -> None:
        revision = change.revision or 0
        if is_gone(change) or not change.value:
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
