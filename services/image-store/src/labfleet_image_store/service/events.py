"""Events of images, in docker's words."""

from labfleet_chassis.caller import caller_tenant
from labfleet_chassis.service import Chassis
from labfleet_proto.events import FleetEvent


class Events:
    """Tells the fleet what happened to the caller's images."""

    def __init__(self, chassis: Chassis) -> None:
        self._chassis = chassis

    async def tell(self, action: str, subject: str, name: str) -> None:
        """Publish an event; lost ones are not told again."""
        await self._chassis.bus.emit(
            FleetEvent(
                tenant=caller_tenant(),
                type="image",
                action=action,
                id=subject,
                attributes={"name": name},
                time_ns=self._chassis.clock.now_ns(),
            )
        )
