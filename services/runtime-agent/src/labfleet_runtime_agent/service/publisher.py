"""Writing observations to the fleet's memory: pipelined, newest first, until each is durable."""

import asyncio

from labfleet_chassis.logs import Log
from labfleet_chassis.store import Bucket
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.buckets import observed_key
from labfleet_proto.containers import Observation
from labfleet_proto.errors import UnavailableError
from labfleet_proto.ids import ContainerId, HostId

_AT_ONCE = 16
_RETRY_S = 0.2


class Publisher:
    """Keeps the newest observation of each container on its way to the store."""

    def __init__(self, bucket: Bucket[Observation], host: HostId, log: Log) -> None:
        self._bucket = bucket
        self._host = host
        self._log = log
        self._waiting: dict[ContainerId, Observation] = {}
        self._wake = asyncio.Event()

    def observe(self, seen: Observation) -> None:
        """Queue an observation; an older one of the same container that still waits is dropped."""
        known = self._waiting.get(seen.id)
        if known is None or known.order() <= seen.order():
            self._waiting[seen.id] = seen
            self._wake.set()

    async def last(self, container: ContainerId) -> Observation | None:
        """What this host told of a container last. Raises UnavailableError."""
        entry = await self._bucket.get(observed_key(self._host, container))
        return entry.value if entry is not None else None

    async def run(self) -> None:
        """Write for ever; wrap in `supervise`."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write all that waits."""
        while self._waiting:
            batch = [self._waiting.pop(key) for key in list(self._waiting)[:_AT_ONCE]]
            async with TaskGroup() as tasks:
                for seen in batch:
                    tasks.create_task(self._write(seen))

    async def _write(self, seen: Observation) -> None:
        try:
            await self._bucket.put(observed_key(seen.host, seen.id), seen)
        except UnavailableError as exc:
            self._log.warning("observation.waits", container=seen.id, error=exc.message)
            await asyncio.sleep(_RETRY_S)
            self.observe(seen)
