"""Docker's events of networks and volumes, as containers here come and go."""

from collections.abc import Iterable

from labfleet_proto.containers import ContainerRecord
from labfleet_proto.events import FleetEvent
from labfleet_proto.networks import Endpoint
from labfleet_runtime_agent.service.tools import Tools


async def networks(
    tools: Tools, record: ContainerRecord, action: str, endpoints: Iterable[Endpoint]
) -> None:
    """Tell `connect` or `disconnect` of each endpoint."""
    for endpoint in endpoints:
        about = {"container": record.id, "name": endpoint.network_name, "type": "bridge"}
        await _emit(tools, record, "network", action, endpoint.network, about)


async def volumes(tools: Tools, record: ContainerRecord, action: str) -> None:
    """Tell `mount` or `unmount` of each volume."""
    for mount in record.spec.mounts:
        about = {"container": record.id, "driver": "local"}
        if action == "mount":
            about |= {
                "destination": mount.target,
                "propagation": "",
                "read/write": str(not mount.read_only).lower(),
            }
        await _emit(tools, record, "volume", action, mount.volume, about)


async def _emit(
    tools: Tools,
    record: ContainerRecord,
    kind: str,
    action: str,
    subject: str,
    about: dict[str, str],
) -> None:
    await tools.bus.emit(
        FleetEvent(
            tenant=record.tenant,
            type=kind,
            action=action,
            id=subject,
            attributes=about,
            host=tools.host,
            time_ns=tools.clock.now_ns(),
        )
    )
