"""Wires the api."""

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path
from typing import Any

from labfleet_api import metrics
from labfleet_api.adapters import tls
from labfleet_api.adapters.limits import BoundedProtocol
from labfleet_api.core.status import STATES, state_of
from labfleet_api.service.application import application
from labfleet_api.service.claims import Claims
from labfleet_api.service.departed import Departed
from labfleet_api.service.fleet import Fleet, Memory
from labfleet_api.settings import Settings
from labfleet_chassis.service import Chassis, run_service
from labfleet_chassis.tasks import TaskGroup
from labfleet_chassis.web import serve_http

_COUNT_EVERY_S = 5.0
_RENEW_EVERY_S = 60.0


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


def tls_listener(settings: Settings) -> socket.socket:
    """Bind the address for TLS. Raises OSError."""
    found = socket.create_server((settings.tls_address, settings.tls_port), backlog=1024)
    found.setblocking(False)
    return found


async def renew(context: ssl.SSLContext, directory: Path) -> None:
    """Take a new certificate for new connections when its file changes, for ever."""
    file = directory / "server.pem"
    known = file.stat().st_mtime_ns
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        found = file.stat().st_mtime_ns
        if found != known:
            context.load_cert_chain(file, directory / "server-key.pem")
            known = found


async def count(fleet: Fleet) -> None:
    """Measure for ever."""
    while True:
        every = fleet.memory.containers.values()
        states = [state_of(record, fleet.seen(record)) for record in every]
        for state in STATES:
            metrics.CONTAINERS.labels(state).set(states.count(state))
        await asyncio.sleep(_COUNT_EVERY_S)


async def run(chassis: Chassis, settings: Settings) -> None:
    """Run until told to stop."""
    fleet = Fleet(chassis, await Memory.open(chassis), settings)
    claims = await Claims.open(chassis, fleet)
    chassis.loop("count", lambda: count(fleet))
    chassis.loop("claims", claims.keep)
    chassis.loop("departed", Departed(fleet).keep)
    app = application(fleet)
    servers: list[tuple[list[socket.socket], Any]] = [(listeners(settings), BoundedProtocol)]
    if settings.tls_address:
        context = tls.server_context(settings.tls_dir)
        chassis.loop("renew", lambda: renew(context, settings.tls_dir))
        servers.append(([tls_listener(settings)], tls.over_tls(context, BoundedProtocol)))
    async with TaskGroup() as tasks:
        for sockets, protocol in servers:
            started = asyncio.Event()
            tasks.create_task(
                serve_http(app, sockets, chassis.stopping, started, protocol=protocol)
            )
            await started.wait()
        chassis.ready(str(settings.socket))


def main() -> None:
    """Entry point of `labfleet-api`."""
    settings = Settings()
    run_service("api", settings, lambda chassis: run(chassis, settings))


if __name__ == "__main__":
    main()
