"""What the workers share."""

import asyncio
from dataclasses import dataclass

from labfleet_chassis.bus import Bus
from labfleet_chassis.clock import Clock
from labfleet_chassis.logs import Log
from labfleet_proto.containers import ContainerRecord, Observation
from labfleet_proto.events import FleetEvent
from labfleet_proto.ids import HostId
from labfleet_runtime_agent.adapters.cgroups import Cgroups
from labfleet_runtime_agent.adapters.conmon import Runtime
from labfleet_runtime_agent.adapters.group_lock import GroupLock
from labfleet_runtime_agent.adapters.layer_store import LayerStore
from labfleet_runtime_agent.adapters.ledger import Ledger
from labfleet_runtime_agent.adapters.snapshots import Snapshots
from labfleet_runtime_agent.adapters.volume_store import VolumeStore
from labfleet_runtime_agent.core.uid_slots import UidSlots
from labfleet_runtime_agent.service.publisher import Publisher
from labfleet_runtime_agent.settings import Settings


@dataclass
class Files:
    """Layers, snapshots, ids and volumes of this host."""

    layers: LayerStore
    snapshots: Snapshots
    slots: UidSlots
    volumes: VolumeStore


@dataclass
class Tools:
    """Everything a worker acts through."""

    host: HostId
    settings: Settings
    bus: Bus
    clock: Clock
    log: Log
    runtime: Runtime
    cgroups: Cgroups
    group_lock: GroupLock
    files: Files
    ledger: Ledger
    publisher: Publisher
    boot_id: str
    start_slots: asyncio.Semaphore

    async def emit(
        self, record: ContainerRecord, action: str, attributes: dict[str, str] | None = None
    ) -> None:
        """Publish a docker event of a container."""
        about = {
            **record.spec.labels,
            "image": record.image.reference,
            "name": record.name,
            "labfleet.host": self.host,
        }
        await self.bus.emit(
            FleetEvent(
                tenant=record.tenant,
                type="container",
                action=action,
                id=record.id,
                attributes=about | (attributes or {}),
                host=self.host,
                time_ns=self.clock.now_ns(),
            )
        )

    def publish(self, seen: Observation) -> None:
        """Make an observation known; it is written soon, and again until it is durable."""
        self.publisher.observe(seen)
