"""Reads the store's blobs again, slowly and for ever, to find the ones that a disk has changed."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace

from labfleet_chassis.clock import Clock
from labfleet_chassis.logs import Log
from labfleet_image_store import metrics
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.blob_reading import BlobReading
from labfleet_image_store.adapters.scrub_memory import ScrubMemory
from labfleet_image_store.core import scrubbing
from labfleet_image_store.core.scrubbing import Progress
from labfleet_image_store.service.healing import Healer
from labfleet_proto.ids import Digest
from labfleet_proto.scrubbing import ScrubState

_NS_PER_S = 1_000_000_000
_LOOK_EVERY_S = 60.0
_SAVE_EVERY_S = 5.0


@dataclass(frozen=True)
class Pace:
    """How often the store is read through, and how fast."""

    every_s: float
    bytes_per_s: float


class Scrubber:
    """One pass at a time. A pass that operators ask for takes the place of the slow one."""

    def __init__(
        self, files: BlobFiles, memory: ScrubMemory, healer: Healer, clock: Clock, log: Log
    ) -> None:
        self._files = files
        self._memory = memory
        self._healer = healer
        self._clock = clock
        self._log = log
        self._asked = asyncio.Event()
        self._state = ScrubState(number=0, is_over=True)
        self._is_fast = False
        self._healed_before: frozenset[Digest] = frozenset()
        self._saved_s = 0.0

    async def run(self, pace: Pace) -> None:
        """Scrub for ever."""
        while True:
            progress = await asyncio.to_thread(self._memory.load)
            if self._asked.is_set():
                self._asked.clear()
                await self._pass(Progress(self._now_s(), "", is_over=False), None)
            elif scrubbing.is_due(progress, self._now_s(), pace.every_s):
                if progress.is_over:
                    progress = Progress(self._now_s(), "", is_over=False)
                self._begin(is_fast=False)
                await self._pass(progress, pace.bytes_per_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK_EVERY_S, pace.every_s)):
                    await self._asked.wait()

    def ask(self) -> ScrubState:
        """Begin a pass without a limit of its rate, or join the one that goes on; return its state."""
        if self._state.is_over or not self._is_fast:
            self._begin(is_fast=True)
            self._asked.set()
        return self._state

    async def state(self) -> ScrubState:
        """The pass that goes on, or the last one."""
        healed = self._healer.healed - self._healed_before
        damaged = await self._healer.damaged()
        return self._state.model_copy(update={"healed": tuple(sorted(healed)), "damaged": damaged})

    def _begin(self, *, is_fast: bool) -> None:
        self._is_fast = is_fast
        self._healed_before = self._healer.healed
        self._state = ScrubState(number=self._state.number + 1, is_over=False)

    def _now_s(self) -> float:
        return self._clock.now_ns() / _NS_PER_S

    async def _pass(self, progress: Progress, bytes_per_s: float | None) -> None:
        number = self._state.number
        every = await asyncio.to_thread(self._files.digests)
        todo = scrubbing.left(every, progress.last)
        for position, digest in enumerate(todo):
            if self._state.number != number:
                return  # another one was asked for
            metrics.SCRUB_POSITION.set((len(every) - len(todo) + position) / len(every))
            is_sound = await self._look(digest, bytes_per_s)
            if self._state.number == number:
                found = self._state.found if is_sound else (*self._state.found, digest)
                self._state = self._state.model_copy(
                    update={"blobs": self._state.blobs + 1, "found": found}
                )
            progress = replace(progress, last=digest)
            await self._save(progress, is_urgent=not is_sound)
        await self._healer.look()
        await self._save(replace(progress, is_over=True), is_urgent=True)
        if self._state.number == number:
            self._state = self._state.model_copy(update={"is_over": True})
        metrics.SCRUB_POSITION.set(1)
        metrics.SCRUB_ENDED.set(self._now_s())
        self._log.info(
            "scrub.done", blobs=self._state.blobs, bytes=self._state.bytes_read,
            found=len(self._state.found),
        )  # fmt: skip

    async def _save(self, progress: Progress, *, is_urgent: bool) -> None:
        now_s = self._clock.monotonic_s()
        if not is_urgent and now_s - self._saved_s < _SAVE_EVERY_S:
            return
        self._saved_s = now_s
        try:
            await asyncio.to_thread(self._memory.save, progress)
        except OSError as exc:  # the disk is full: the next life reads this once more
            self._log.warning("scrub.unsaved", error=str(exc))

    async def _look(self, digest: Digest, bytes_per_s: float | None) -> bool:
        """Read a blob; if its bytes are wrong twice, set it aside. Whether it is sound, or gone."""
        inode = 0
        for _ in range(2):
            try:
                have, inode = await self._read(digest, bytes_per_s)
            except FileNotFoundError:
                return True
            if have == digest:
                metrics.SCRUBBED_BLOBS.inc()
                return True
        if not await asyncio.to_thread(self._files.condemn, digest, inode):
            return True  # somebody has brought it anew meanwhile
        await self._healer.look()
        return False

    async def _read(self, digest: Digest, bytes_per_s: float | None) -> tuple[str, int]:
        """What a blob's file says now, and which file it is. Raises FileNotFoundError."""
        reading = await asyncio.to_thread(BlobReading, self._files.path_of(digest))
        try:
            while True:
                began = time.perf_counter()
                try:
                    count = await asyncio.to_thread(reading.step)
                except OSError as exc:
                    self._log.warning("scrub.unreadable", digest=digest, error=str(exc))
                    return "", reading.inode
                if not count:
                    return reading.digest, reading.inode
                metrics.SCRUBBED.inc(count)
                self._state = self._state.model_copy(
                    update={"bytes_read": self._state.bytes_read + count}
                )
                if bytes_per_s is not None and not self._asked.is_set():
                    took_s = time.perf_counter() - began
                    await asyncio.sleep(scrubbing.pause_s(count, took_s, bytes_per_s))
        finally:
            reading.close()
