"""The host's signs of life: its record and its lease."""

import asyncio
import contextlib
import json
from pathlib import Path

from labfleet_chassis.clock import Clock
from labfleet_chassis.durable_files import write_durably
from labfleet_chassis.store import Bucket
from labfleet_proto.hosts import HostRecord, Lease
from labfleet_proto.ids import HostId
from labfleet_runtime_agent.service.admission import Admission

_LEASE_EVERY_S = 5.0
_RECORD_EVERY_S = 10.0
_SETTLE_S = 1.0
"""For people and metrics only: the scheduler counts from the records."""


class Epoch:
    """Version of this host's right to run containers, kept in a file; grows with each boot."""

    def __init__(self, state_dir: Path, boot_id: str) -> None:
        file = state_dir / "epoch.json"
        known: dict[str, str] = {}
        if file.exists():
            with contextlib.suppress(ValueError):
                known = json.loads(file.read_text())
        self.number = int(known.get("epoch", 0))
        if known.get("boot_id") != boot_id:
            self.number += 1
            text = json.dumps({"epoch": str(self.number), "boot_id": boot_id})
            write_durably(file, text.encode())


async def renew_lease(leases: Bucket[Lease], host: HostId, epoch: Epoch, boot_id: str) -> None:
    """Renew for ever; wrap in `supervise`."""
    while True:
        await leases.put(host, Lease(host=host, epoch=epoch.number, boot_id=boot_id))
        await asyncio.sleep(_LEASE_EVERY_S)


async def publish_host(
    hosts: Bucket[HostRecord], record: HostRecord, admission: Admission, clock: Clock
) -> None:
    """Publish the free vector when it moves, and every ten seconds; wrap in `supervise`."""
    while True:
        admission.moved.clear()
        admission.lapse(clock.monotonic_s())
        admission.count()
        fresh = record.model_copy(
            update={"free": admission.free(), "updated_at_ns": clock.now_ns()}
        )
        await hosts.put(record.id, fresh)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RECORD_EVERY_S):
                await admission.moved.wait()
        await asyncio.sleep(_SETTLE_S)
