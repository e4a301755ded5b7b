"""Changes to a container that runs on: paused and let go on, other limits, signals."""

import asyncio

from labfleet_proto.errors import ConflictError, LabfleetError
from labfleet_proto.restarts import ends_restarts
from labfleet_proto.signals import number_of
from labfleet_runtime_agent.service.live import Live


async def freeze(live: Live) -> None:
    """Pause it. Raises InternalError; then it goes on as before."""
    await asyncio.to_thread(live.tools.cgroups.freeze, live.record.id)
    if live.exited.is_set():
        return
    live.state.change(is_paused=True)
    await live.tools.emit(live.record, "pause")


async def thaw(live: Live) -> None:
    """Let it go on."""
    await asyncio.to_thread(live.tools.cgroups.thaw, live.record.id)
    live.state.change(is_paused=False)
    await live.tools.emit(live.record, "unpause")


async def adjust(live: Live) -> None:
    """Bring the limits of its record into force, if it runs with others.

    What the kernel refuses is told to those who wait and not tried again: the next start has it.
    """
    limits, old = live.record.spec.limits, live.limits
    if not live.is_running or limits == old:
        return
    live.limits = limits
    try:
        await asyncio.to_thread(live.tools.cgroups.set_limits, live.record.id, limits)
    except LabfleetError as exc:
        live.tools.log.warning("limits.refused", container=live.record.id, error=exc.message)
        live.waiters.fail(exc)
        if old is not None:
            await asyncio.to_thread(live.tools.cgroups.set_limits, live.record.id, old)


async def send(live: Live, name: str) -> None:
    """Send a signal to its first process; one that is to end it also ends its restarts.

    Raises ConflictError, InvalidRequestError.
    """
    record, number = live.record, number_of(name)
    is_end = ends_restarts(number, number_of(record.spec.stop_signal))
    if live.awaits_restart:
        if is_end:
            live.state.change(restart_at_ns=0, is_killed=True)
            live.wake.set()
        return
    if live.init is None or not live.is_running:
        raise ConflictError(
            f"Cannot kill container: {record.id}: container {record.id} is not running"
        )
    if is_end and live.seen is not None and not live.seen.is_killed:
        live.state.change(is_killed=True)  # before its end can be seen
    if not live.init.send(number):
        raise ConflictError(
            f"Cannot kill container: {record.id}: container {record.id} is not running"
        )
    await live.tools.emit(record, "kill", {"signal": str(number)})
    if live.seen is not None and live.seen.is_paused and is_end:
        await asyncio.to_thread(live.tools.cgroups.thaw, record.id)
