"""Keeps the logs of running containers small."""

import asyncio

from labfleet_runtime_agent.adapters import log_files
from labfleet_runtime_agent.service.agent import Agent
from labfleet_runtime_agent.service.worker import Worker

_EVERY_S = 0.25


async def keep(agent: Agent) -> None:
    """Look at every running container's log for ever; one whose disk fails is tried again."""
    while True:
        running = [worker for worker in agent.workers.values() if worker.is_running]
        await asyncio.to_thread(_look, agent, running)
        await asyncio.sleep(_EVERY_S)


def _look(agent: Agent, workers: list[Worker]) -> None:
    for worker in workers:
        settings = worker.record.spec.log
        if settings.driver == "none":
            continue
        try:
            log_files.keep_small(
                worker.log_file, worker.bundle / "ctl", settings.file_bytes, settings.files
            )
        except OSError as exc:
            agent.tools.log.warning("log.rotate", container=worker.record.id, error=str(exc))
