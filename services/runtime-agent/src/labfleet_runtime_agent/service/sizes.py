"""How large the files of containers are, measured when someone asks."""

import asyncio

from labfleet_proto.jobs import Job
from labfleet_proto.runtime import ContainerRef, ContainerSizes
from labfleet_runtime_agent.adapters import layer_reading
from labfleet_runtime_agent.adapters.writable_layer import WritableLayer
from labfleet_runtime_agent.service.agent import Agent

_AT_ONCE = 2


class Sizes:
    """Measures containers, two at once; of a layer, which never changes, the size is kept."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._known: dict[str, int] = {}

    async def sizes(self, job: Job, args: ContainerRef) -> ContainerSizes:
        """Measure a container's files; repeating is harmless."""
        worker = await self._agent.find(job.tenant, args.container)
        layer = await worker.writable_layer()
        unknown = [path for path in layer.layers if path.name not in self._known]
        async with self._slots:
            found = await layer_reading.sizes(WritableLayer(layer.upper, unknown, layer.base))
        self._known.update(zip((path.name for path in unknown), found[1:], strict=True))
        of_image = sum(self._known[path.name] for path in layer.layers)
        return ContainerSizes(writable_bytes=found[0], total_bytes=found[0] + of_image)
