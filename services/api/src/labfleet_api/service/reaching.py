"""From a changed record to its effect: the host is asked to follow, and its answer awaited."""

import asyncio

from labfleet_api.core import goals
from labfleet_api.service.fleet import Fleet, Watch
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.containers import ContainerRecord, Goal, Observation
from labfleet_proto.errors import LabfleetError, NotFoundError, StaleError, UnavailableError
from labfleet_proto.runtime import RECONCILE, Reconcile

_LIMIT_S = 90.0
_LONGEST_WAIT_S = 86_400.0


class Reaching:
    """Asks hosts to reach what is recorded, and tells of it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def reach(self, record: ContainerRecord, limit_s: float = _LIMIT_S) -> None:
        """Ask the host to reach the goal now.

        The goal is reached when the host says so or when its observation shows it, whichever comes
        first: the job may be lost, the host acts on the record all the same.
        """
        fleet = self._fleet
        with fleet.watching(record) as watch:
            async with TaskGroup() as tasks:
                asked = tasks.create_task(self._asked(record, limit_s))
                shown = tasks.create_task(_shown(watch, record))
                await asyncio.wait({asked, shown}, return_when=asyncio.FIRST_COMPLETED)
                if not shown.done() and isinstance(asked.result(), StaleError):
                    # A newer wish came in between: what becomes of both is shown.
                    await asyncio.wait({shown}, timeout=limit_s)
                answer = shown.result() if shown.done() else asked.result()
                asked.cancel()
                shown.cancel()
        if isinstance(answer, LabfleetError):
            raise answer
        if answer is not None:
            fleet.told(answer)

    async def follow(self, record: ContainerRecord) -> None:
        """Ask the host to follow a change that no observation shows, such as other limits."""
        answer = await self._asked(record, _LIMIT_S)
        if isinstance(answer, LabfleetError) and not isinstance(answer, StaleError):
            raise answer

    async def _asked(
        self, record: ContainerRecord, limit_s: float
    ) -> Observation | LabfleetError | None:
        """Ask the host; None when it knows nothing of a container that is to be removed."""
        limit_s = min(limit_s, _LONGEST_WAIT_S)
        try:
            seen = await self._fleet.ask(RECONCILE, Reconcile(record=record), record, limit_s)
            return goals.failure(record, seen) or seen
        except UnavailableError as exc:
            return UnavailableError(
                f"{exc.message}: the wish ({record.goal}) is recorded and is carried out when "
                f"host {record.assignment.host} answers again"
            )
        except NotFoundError as exc:
            return None if record.goal is Goal.REMOVED else exc
        except LabfleetError as exc:
            return exc

    async def tell(
        self, record: ContainerRecord, action: str, more: dict[str, str] | None = None
    ) -> None:
        """Publish an event of a container in docker's words."""
        attributes = {
            **record.spec.labels,
            "image": record.image.reference,
            "name": record.name,
            "labfleet.host": record.assignment.host,
            **(more or {}),
        }
        await self._fleet.emit("container", action, record.id, attributes)


async def _shown(watch: Watch, record: ContainerRecord) -> Observation | LabfleetError | None:
    """Wait until the container's observation shows the goal; None if its record is gone."""
    while not watch.is_gone:
        seen = watch.last
        if seen is not None and goals.is_reached(record, seen):
            return goals.failure(record, seen) or seen
        watch.moved.clear()
        await watch.moved.wait()
    return None
