"""Keeps the fleet's promises: what must go is brought to its end."""

import asyncio

from labfleet_chassis.service import Chassis
from labfleet_chassis.store import Bucket, Entry
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.buckets import container_key, name_key
from labfleet_proto.containers import (
    ContainerRecord,
    NameRecord,
    Observation,
    State,
)
from labfleet_proto.errors import StaleError
from labfleet_proto.ids import TenantId
from labfleet_scheduler import metrics
from labfleet_scheduler.core import promises
from labfleet_scheduler.service.memory import Memory

_PASS_EVERY_S = 5.0
_SETTLE_S = 0.01
_BATCH = 32


class Promises:
    """Compares records, names and observations, and does what is due."""

    def __init__(self, chassis: Chassis, memory: Memory) -> None:
        self._chassis = chassis
        self._memory = memory

    async def keep(self) -> None:
        """Look at everything when a container was removed, and every five seconds; for ever.

        Nobody waits for the rest, which is due some time after it came to be.
        """
        moved = asyncio.Event()

        def on_observed(_key: str, entry: Entry[Observation] | None) -> None:
            if entry is not None and entry.value.state is State.REMOVED:
                moved.set()

        self._memory.observed.listen(on_observed)
        while True:
            moved.clear()
            await self._pass()
            try:
                async with asyncio.timeout(_PASS_EVERY_S):
                    await moved.wait()
                    await asyncio.sleep(_SETTLE_S)
            except TimeoutError:
                continue

    async def _pass(self) -> None:
        memory = self._memory
        actions = promises.due(
            {key: entry.value for key, entry in memory.containers.entries.items()},
            {key: entry.value for key, entry in memory.names.entries.items()},
            {key: entry.value for key, entry in memory.observed.entries.items()},
            self._chassis.clock.now_ns(),
        )
        for start in range(0, len(actions), _BATCH):
            async with TaskGroup() as tasks:
                for action in actions[start : start + _BATCH]:
                    tasks.create_task(self._act(action))

    async def _act(self, action: promises.Action) -> None:
        memory = self._memory
        metrics.PROMISES.labels(type(action).__name__).inc()
        match action:
            case promises.DropContainer():
                record = memory.containers.entries.get(action.container_key)
                name = memory.names.entries.get(action.name_key)
                if name is not None and record is not None and name.value.id == record.value.id:
                    await _drop(memory.names.bucket, action.name_key, name.revision)
                for key in action.volume_keys:
                    await memory.volumes.bucket.delete(key)
                if record is not None:
                    await _drop(memory.containers.bucket, action.container_key, record.revision)
            case promises.DropName():
                entry = memory.names.entries.get(action.name_key)
                is_its = entry is not None and entry.value.id == action.container
                # The mirror of records may be behind: what it lacks is asked of the store.
                if entry is not None and is_its and not await self._is_named(action):
                    await _drop(memory.names.bucket, action.name_key, entry.revision)
            case promises.DropObservation():
                seen = memory.observed.entries.get(action.observed_key)
                # The mirror of records may be behind: what it lacks is asked of the store.
                if seen is not None and not await self._is_recorded(seen.value):
                    await _drop(memory.observed.bucket, action.observed_key, seen.revision)

    async def _is_named(self, action: promises.DropName) -> bool:
        """Whether the container has this name, as the store has it."""
        tenant = TenantId(action.name_key.partition(".")[0])
        key = container_key(tenant, action.container)
        there = await self._memory.containers.bucket.get(key)
        return there is not None and name_key(tenant, there.value.name) == action.name_key

    async def _is_recorded(self, seen: Observation) -> bool:
        key = container_key(seen.tenant, seen.id)
        return await self._memory.containers.bucket.get(key) is not None


async def _drop(
    bucket: "Bucket[ContainerRecord] | Bucket[NameRecord] | Bucket[Observation]",
    key: str,
    revision: int,
) -> bool:
    """Delete at a revision; False if it changed meanwhile: the next pass looks again."""
    try:
        await bucket.delete(key, revision)
    except StaleError:
        return False
    return True
