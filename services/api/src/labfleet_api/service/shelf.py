"""The image store as the routes use it."""

from labfleet_api.core.status import state_of
from labfleet_api.service.fleet import Fleet
from labfleet_proto.containers import ContainerRecord, Goal
from labfleet_proto.images import (
    LIST_IMAGES,
    REMOVE_IMAGE,
    RESOLVE_IMAGE,
    ImageDetail,
    ImageList,
    ImageQuery,
    ImageRemoved,
    RemoveImage,
    owner_of,
)
from labfleet_proto.message import Nothing

_ALIVE = ("running", "paused", "restarting")


class Shelf:
    """Asks the store for the caller's tenant."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def resolve(self, reference: str) -> ImageDetail:
        """Find an image. Raises NotFoundError, ConflictError, InvalidRequestError."""
        fleet = self._fleet
        return await fleet.bus.call(
            RESOLVE_IMAGE,
            ImageQuery(reference=reference),
            tenant=fleet.tenant,
            subject=reference,
        )

    async def every(self) -> ImageList:
        """All images that the tenant sees."""
        fleet = self._fleet
        return await fleet.bus.call(LIST_IMAGES, Nothing(), tenant=fleet.tenant, subject="images")

    def users(self, image_id: str) -> list[ContainerRecord]:
        """Containers, of all tenants, that hold the caller's image."""
        return [
            record
            for record in self._fleet.memory.containers.values()
            if record.image.image_id == image_id
            and record.goal is not Goal.REMOVED
            and self._fleet.tenant in (record.tenant, owner_of(record.image.repository))
        ]

    async def remove(self, name: str, *, force: bool) -> ImageRemoved:
        """Remove a name or an image. Raises NotFoundError, ConflictError, ForbiddenError."""
        fleet = self._fleet
        image = await self.resolve(name)
        users = self.users(image.pin.image_id)
        alive = [each for each in users if state_of(each, fleet.seen(each)) in _ALIVE]
        others = [each for each in users if each not in alive]
        return await fleet.bus.call(
            REMOVE_IMAGE,
            RemoveImage(
                reference=name,
                force=force,
                running_user=alive[0].id[:12] if alive else "",
                stopped_user=others[0].id[:12] if others else "",
            ),
            tenant=fleet.tenant,
            subject=name,
        )
