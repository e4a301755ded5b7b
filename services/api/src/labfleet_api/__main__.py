"""Wires the api."""

import asyncio
import contextlib
import os
import socket

from labfleet_api import metrics
from labfleet_api.adapters.hijack import HijackProtocol
from labfleet_api.core.views import state_of
from labfleet_api.service.application import application
from labfleet_api.service.claims import Claims
from labfleet_api.service.fleet import Fleet, Memory
from labfleet_api.settings import Settings
from labfleet_chassis.credentials import Credentials
from labfleet_chassis.service import Chassis, run_service
from labfleet_chassis.tasks import TaskGroup
from labfleet_chassis.web import serve_http

_COUNT_EVERY_S = 5.0
_STATES = ("created", "running", "exited", "removing")


def listeners(settings: Settings) -> list[socket.socket]:
    """Bind the local socket, and TCP if asked for. Raises OSError."""
    settings.socket.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        settings.socket.unlink()
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        local.bind(str(settings.socket))
    finally:
        os.umask(before)
    local.listen(1024)
    found = [local]
    if settings.tcp_address:
        found.append(socket.create_server((settings.tcp_address, settings.tcp_port), backlog=1024))
    for each in found:
        each.setblocking(False)
    return found


async def count(fleet: Fleet) -> None:
    """Measure for ever."""
    while True:
        every = fleet.memory.containers.values()
        states = [state_of(record, fleet.seen(record)) for record in every]
        for state in _STATES:
            metrics.CONTAINERS.labels(state).set(states.count(state))
        await asyncio.sleep(_COUNT_EVERY_S)


async def run(chassis: Chassis, settings: Settings) -> None:
    """Run until told to stop."""
    fleet = Fleet(chassis, await Memory.open(chassis), settings)
    claims = await Claims.open(chassis, fleet)
    chassis.loop("count", lambda: count(fleet))
    chassis.loop("claims", claims.keep)
    credentials = await Credentials.open(chassis)
    started = asyncio.Event()
    async with TaskGroup() as tasks:
        tasks.create_task(
            serve_http(
                application(fleet, credentials),
                listeners(settings),
                chassis.stopping,
                started,
                protocol=HijackProtocol,
            )
        )
        await started.wait()
        chassis.ready(str(settings.socket))


def main() -> None:
    """Entry point of `labfleet-api`."""
    settings = Settings()
    run_service("api", settings, lambda chassis: run(chassis, settings))


if __name__ == "__main__":
    main()
