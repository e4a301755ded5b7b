"""HTTP served by uvicorn inside a service: started and drained with it."""

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn

from labfleet_chassis.tasks import TaskGroup

_DRAIN_S = 5


async def serve_http(
    app: Any,
    sockets: list[socket.socket],
    stopping: asyncio.Event,
    started: asyncio.Event,
    *,
    protocol: Any = "httptools",
) -> None:
    """Serve until `stopping`, then give open requests five seconds; `started` is set once it listens.

    Args:
        app: An ASGI application.
        sockets: Bound and not blocking.
        stopping: Ends the service.
        started: Told to whoever says that the service is ready.
        protocol: uvicorn's name or class of the HTTP protocol.
    """
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_DRAIN_S,
        server_header=False,
        proxy_headers=False,  # nobody stands in front; it costs each request a twentieth
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=sockets)
    started.set()
    async with TaskGroup() as tasks:
        tasks.create_task(server.main_loop())
        await stopping.wait()
        server.should_exit = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S + 1):
            await server.shutdown(sockets=sockets)
