"""The frame of every service: settings, logs, metrics, bus, signals, orderly end."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TypeVar

import uvloop

from labfleet_chassis import bus as bus_module
from labfleet_chassis import logs, metrics
from labfleet_chassis.bus import Bus
from labfleet_chassis.clock import Clock, SystemClock
from labfleet_chassis.logs import Log
from labfleet_chassis.mirror import Mirror
from labfleet_chassis.residency import stay_in_memory
from labfleet_chassis.settings import ServiceSettings
from labfleet_chassis.supervise import supervise
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.buckets import BucketDef
from labfleet_proto.health import Pong
from labfleet_proto.ids import HostId
from labfleet_proto.jobs import Service
from labfleet_proto.message import Message

S = TypeVar("S", bound=ServiceSettings)
M = TypeVar("M", bound=Message)

_DRAIN_S = 10.0
_COLLECT = (10_000, 20, 20)


@dataclass
class Chassis:
    """What a running service stands on."""

    name: Service
    host: HostId | None
    bus: Bus
    clock: Clock
    log: Log
    tasks: TaskGroup
    """For loops that live as long as the service; they are cancelled when it ends."""
    metrics_port: int
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set on SIGTERM and SIGINT: stop taking work, drain, return."""
    is_ready: bool = False
    detail: str = ""

    def loop(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        """Run a supervised loop for the life of the service."""
        self.tasks.create_task(supervise(name, body, self.log), name=name)

    async def mirror(self, definition: BucketDef[M], timeout_s: float = 60.0) -> Mirror[M]:
        """Follow a bucket for the life of the service; returns when its first pass is done."""
        mirror = await self.bus.mirror(definition)
        self.loop(f"mirror.{definition.name}", mirror.run)
        async with asyncio.timeout(timeout_s):
            await mirror.ready.wait()
        return mirror

    def ready(self, detail: str = "") -> None:
        """Say in pings and logs that work is taken from now on."""
        self.is_ready = True
        self.detail = detail
        # What is there now stays: the collector need not look at it again, nor look so often, as
        # services make many short-lived objects and few cycles.
        gc.freeze()
        gc.set_threshold(*_COLLECT)
        if hindrance := stay_in_memory():
            self.log.warning("service.pageable", error=hindrance)
        self.log.info("service.ready", detail=detail, metrics_port=self.metrics_port)


Body = Callable[[Chassis], Awaitable[None]]


def run_service(
    name: Service, settings: ServiceSettings, body: Body, host: HostId | None = None
) -> None:
    """Run a service until a signal ends it. `body` returns once `chassis.stopping` is set."""
    logs.configure(settings.log_level)
    uvloop.run(_main(name, settings, body, host))


async def _main(name: Service, settings: ServiceSettings, body: Body, host: HostId | None) -> None:
    log = logs.get(name) if host is None else logs.get(name).bind(host=host)
    clock = SystemClock()
    started_at_ns = clock.now_ns()
    port = metrics.serve(settings.metrics_address, settings.metrics_port)
    async with bus_module.connect(
        settings.nats_url,
        settings.nats_token.get_secret_value(),
        name=f"{name}@{host}" if host else name,
        clock=clock,
        log=log,
    ) as bus:
        await bus.ensure_streams()
        try:
            async with TaskGroup() as tasks:
                chassis = Chassis(name, host, bus, clock, log, tasks, port)
                loop = asyncio.get_running_loop()
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, chassis.stopping.set)

                def pong() -> Pong:
                    return Pong(
                        service=name,
                        host=host,
                        version=version("labfleet"),
                        pid=os.getpid(),
                        started_at_ns=started_at_ns,
                        metrics_port=port,
                        is_ready=chassis.is_ready,
                        detail=chassis.detail,
                    )

                await bus.answer_pings(pong)
                work = tasks.create_task(_body(body, chassis), name="body")
                stop = tasks.create_task(chassis.stopping.wait(), name="stop")
                await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_S):
                        await asyncio.wait({work})
                raise _EndedError
        except* _EndedError:
            log.info("service.ended")


async def _body(body: Body, chassis: Chassis) -> None:
    await body(chassis)


class _EndedError(Exception):
    """Ends the task group: loops are cancelled with it."""
