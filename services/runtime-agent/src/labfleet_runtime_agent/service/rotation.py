"""Keeps the logs of running containers small."""

import asyncio
import os
from dataclasses import dataclass, field

from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters import log_files
from labfleet_runtime_agent.service.agent import Agent
from labfleet_runtime_agent.service.worker import Worker

_EVERY_S = 0.25


async def keep(agent: Agent) -> None:
    """Look at every running container's log for ever; one whose disk fails is tried again."""
    rotation = Rotation(agent)
    while True:
        running = [worker for worker in agent.workers.values() if worker.is_running]
        await asyncio.to_thread(rotation.look, running)
        await asyncio.sleep(_EVERY_S)


@dataclass(frozen=True)
class Rotation:
    """Which logs need no more than a look at their size: a host looks at hundreds, four times a second."""

    _agent: Agent
    _small: dict[ContainerId, tuple[str, int]] = field(default_factory=dict)
    """File and most bytes of logs at which there was nothing to do."""

    def look(self, workers: list[Worker]) -> None:
        """Begin new files where one is large enough, and delete the oldest."""
        running = {worker.record.id: worker for worker in workers}
        for gone in self._small.keys() - running.keys():
            del self._small[gone]
        for container, worker in running.items():
            if not self._is_small(container):
                self._look_at(container, worker)

    def _is_small(self, container: ContainerId) -> bool:
        known = self._small.get(container)
        if known is None:
            return False
        file, most = known
        try:
            return os.stat(file).st_size < most  # noqa: PTH116 - a path object costs more than the call
        except OSError:
            return False

    def _look_at(self, container: ContainerId, worker: Worker) -> None:
        settings = worker.record.spec.log
        if settings.driver == "none":
            return
        file = worker.log_file
        try:
            acted = log_files.keep_small(
                file, worker.bundle / "ctl", settings.file_bytes, settings.files
            )
        except OSError as exc:
            self._agent.tools.log.warning("log.rotate", container=container, error=str(exc))
            acted = True
        if acted:
            self._small.pop(container, None)
        else:
            self._small[container] = (str(file), settings.file_bytes)
