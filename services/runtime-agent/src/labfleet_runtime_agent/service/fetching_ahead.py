"""Images fetched before any container needs them: `labfleet image pre-pull`."""

import asyncio

from labfleet_chassis.logs import Log
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import LabfleetError
from labfleet_proto.ids import Digest
from labfleet_proto.images import ImagePin
from labfleet_proto.jobs import Job
from labfleet_proto.layers import FetchLayers, FetchProgress
from labfleet_runtime_agent.adapters.layer_store import LayerStore


class FetchingAhead:
    """Fetches beside the job that asked for it, which only tells how far it is."""

    def __init__(self, layers: LayerStore, tasks: TaskGroup, log: Log) -> None:
        self._layers = layers
        self._tasks = tasks
        self._log = log
        self._fetching: dict[Digest, asyncio.Task[None]] = {}
        self._problems: dict[Digest, str] = {}

    async def fetch(self, _job: Job, args: FetchLayers) -> FetchProgress:
        """Begin unless it is under way, and tell how far it is.

        Repeating is harmless: there is one fetching of an image at a time. A failure is told once; who
        asks again then begins anew.
        """
        image = args.image
        key = image.manifest_digest
        problem = self._problems.pop(key, "")
        is_done = all(self._layers.is_here(layer) for layer in image.layers)
        if not (is_done or problem or key in self._fetching):
            self._fetching[key] = self._tasks.create_task(self._fetch(key, image))
        total, here = self._layers.progress(image)
        return FetchProgress(total_bytes=total, here_bytes=here, is_done=is_done, problem=problem)

    async def _fetch(self, key: Digest, image: ImagePin) -> None:
        try:
            await self._layers.ensure(image)
        except Exception as exc:  # noqa: BLE001 - the top of a task: told to who asks, logged once
            self._problems[key] = str(exc) or type(exc).__name__
            is_bug = not isinstance(exc, LabfleetError | OSError)
            self._log.warning(
                "image.not_fetched", image=image.reference, error=str(exc), exc_info=is_bug
            )
        finally:
            self._fetching.pop(key, None)
