"""The end of an attempt, whoever caused it, and the end of a container."""

import asyncio
import contextlib
import signal

from labfleet_chassis.supervise import supervise
from labfleet_proto.containers import Goal, Observation, State
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.signals import number_of
from labfleet_runtime_agent.adapters import conmon, log_files
from labfleet_runtime_agent.adapters.processes import ProcessHandle, is_alive
from labfleet_runtime_agent.core import probing, restarts
from labfleet_runtime_agent.service import place_events
from labfleet_runtime_agent.service.launch import Launch
from labfleet_runtime_agent.service.live import Live

_EXIT_FILE_LIMIT_S = 5.0
_EXECS_LIMIT_S = 1.0
_UNKNOWN_CODE = 137


def follow(live: Live) -> None:
    """Watch the monitor and the container's first process."""
    running = live.state.running
    if running is None:
        return
    live.init = ProcessHandle(running.pid, running.started_ticks)
    monitor = ProcessHandle(running.monitor_pid, running.monitor_started_ticks)
    live.admission.spawn("end", _await_end(live, live.init, monitor, live.exited))


async def _await_end(
    live: Live, init: ProcessHandle, monitor: ProcessHandle, exited: asyncio.Event
) -> None:
    async def ended() -> None:
        await monitor.ended()
        await init.ended()

    try:
        await supervise("end", ended, live.tools.log)
    finally:
        monitor.close()
    exited.set()
    live.wake.set()


async def finish(live: Live) -> None:
    """The attempt is over: note its code, then take away what ran."""
    tools = live.tools
    code, finished_ns = await _exit_code(live)
    seen = live.seen
    if seen is None:
        return
    if live.init is not None:
        live.init.close()
        live.init = None
    if seen.is_paused:
        await asyncio.to_thread(tools.cgroups.thaw, live.record.id)
    oom = await asyncio.to_thread(tools.cgroups.was_oom_killed, live.record.id)
    await _end_execs(live)
    live.exited = asyncio.Event()
    live.state.running = None
    ran_s = max(finished_ns - seen.started_at_ns, 0) / 1e9
    wait_ms = _restart_wait_ms(live, seen, code, ran_s)
    await live.state.settle(
        seen.attempt,
        State.EXITED,
        exit_code=code,
        finished_at_ns=finished_ns,
        was_oom_killed=oom,
        pid=0,
        endpoints=(),
        is_paused=False,
        restart_at_ns=tools.clock.now_ns() + wait_ms * 1_000_000 if wait_ms is not None else 0,
        restart_delay_ms=wait_ms or 0,
        health=probing.ended(seen.health),
    )
    tools.log.info("container.exited", container=live.record.id, exit_code=code, oom=oom)
    if oom:
        await tools.emit(live.record, "oom")
    await tools.emit(live.record, "die", {"exitCode": str(code), "execDuration": str(int(ran_s))})
    await place_events.networks(tools, live.record, "disconnect", seen.endpoints)
    await place_events.volumes(tools, live.record, "unmount")
    async with live.files:
        await live.undo(Launch(tools, live.record), seen.run)


async def _end_execs(live: Live) -> None:
    """Execs end with their container; one that was done a moment before keeps its own code."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_EXECS_LIMIT_S):
            for one in list(live.execs.values()):
                if one.is_started:
                    await one.ended.wait()
    for one in live.execs.values():
        one.finish(_UNKNOWN_CODE)


def _restart_wait_ms(live: Live, seen: Observation, code: int, ran_s: float) -> int | None:
    """How long the restart policy waits before the next run; None if this was the last."""
    record = live.record
    if record.goal is not Goal.RUNNING or record.attempt != seen.attempt:
        return None
    ending = restarts.Ending(
        exit_code=code,
        ran_s=ran_s,
        restart_count=seen.restart_count,
        last_wait_ms=seen.restart_delay_ms,
        is_killed=seen.is_killed,
        is_of_older_boot=not live.state.is_of_this_boot,
    )
    return restarts.wait_ms(record.spec.restart, ending)


async def _exit_code(live: Live) -> tuple[int, int]:
    """The code that the monitor wrote; 137 if it was killed before it could."""
    clock, running = live.tools.clock, live.state.running
    end_s = clock.monotonic_s() + _EXIT_FILE_LIMIT_S
    while True:
        found = conmon.exit_code(live.bundle, live.record.id)
        if found is not None:
            return found
        is_watched = running is not None and is_alive(
            running.monitor_pid, running.monitor_started_ticks
        )
        if not is_watched or clock.monotonic_s() > end_s:
            return _UNKNOWN_CODE, clock.now_ns()
        await asyncio.sleep(0.01)


async def stop(live: Live, name: str, grace_s: int) -> None:
    """Ask it to end, and kill it after its grace; returns early when a newer record comes."""
    init = live.init
    if init is None:
        await finish(live)
        return
    generation = live.record.generation
    was_paused = live.seen is not None and live.seen.is_paused
    live.state.advance(live.seen_attempt, State.STOPPING, is_paused=False)
    number = _signal_number(name)
    await _signal(live, init, number)
    if was_paused:  # what was sent arrives now
        await asyncio.to_thread(live.tools.cgroups.thaw, live.record.id)
    if number != signal.SIGKILL and not await _ends_within(live, grace_s, generation):
        if live.record.generation != generation:
            return  # decide again
        await _signal(live, init, signal.SIGKILL)
    await live.exited.wait()
    await finish(live)
    if live.record.goal is not Goal.REMOVED:
        await live.tools.emit(live.record, "stop")


async def _signal(live: Live, init: ProcessHandle, number: int) -> None:
    if init.send(number):
        await live.tools.emit(live.record, "kill", {"signal": str(number)})


async def _ends_within(live: Live, limit_s: int, generation: int) -> bool:
    """Wait for the end; False after the limit, or at once when a newer record comes."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not live.exited.is_set() and live.record.generation == generation:
                await live.wake.wait()
                live.wake.clear()
    return live.exited.is_set()


async def settle(live: Live, reason: str, code: int) -> None:
    """An attempt that was called off before it ran: nothing of it stays."""
    attempt = live.record.attempt
    if live.has_leftovers:
        await live.undo(Launch(live.tools, live.record), live.state.run_of(attempt))
    live.state.running = None
    live.drop_attachments()
    now = live.tools.clock.now_ns()
    await live.state.settle(
        attempt, State.EXITED, exit_code=code, error=reason, pid=0, finished_at_ns=now
    )


async def remove(live: Live, *, with_volumes: bool) -> None:
    """Take away everything; the ledger keeps only that it is removed, until the record is gone."""
    tools, record = live.tools, live.record
    async with live.files:
        await Launch(tools, record).undo(live.state.run_of(record.attempt))
        await tools.files.snapshots.discard(record.id)
        await asyncio.to_thread(log_files.remove_all, live.log_file)
    if with_volumes:
        for mount in record.spec.mounts:
            if mount.is_anonymous:
                await tools.files.volumes.remove(record.tenant, mount.volume)
    live.state.release_uids()
    live.drop_attachments()
    await live.state.settle(live.seen_attempt, State.REMOVED, pid=0)
    await tools.emit(record, "destroy")


def _signal_number(name: str) -> int:
    """Number of a signal's name; SIGTERM for one that this host does not know."""
    try:
        return number_of(name)
    except InvalidRequestError:
        return signal.SIGTERM
