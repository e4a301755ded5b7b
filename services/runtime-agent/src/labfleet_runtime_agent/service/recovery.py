"""After a restart of the agent: what is true of a container that an earlier life of it ran."""

import asyncio

from labfleet_proto.containers import Goal, State
from labfleet_proto.restarts import Restart
from labfleet_runtime_agent.adapters.processes import is_alive
from labfleet_runtime_agent.service import ending, health
from labfleet_runtime_agent.service.launch import Launch
from labfleet_runtime_agent.service.live import Live


async def recover(live: Live) -> None:
    """Find out what is true now, and tell it."""
    await _recall(live)
    seen, running = live.seen, live.state.running
    if seen is None or seen.state < State.CREATED:
        return
    if seen.state >= State.EXITED:
        live.state.publish()  # that life may have ended before it was told
        if seen.state is State.EXITED and live.has_leftovers:
            await live.undo(Launch(live.tools, live.record), seen.run)
        _after_boot(live)
        _open_restart(live)
        return
    if running is not None and is_alive(running.pid, running.started_ticks):
        if seen.state is State.CREATED and not live.tools.runtime.has_begun(running.pid):
            return  # decide() starts it: nothing of this attempt has run
        if seen.state is State.CREATED:
            live.state.advance(seen.attempt, State.RUNNING)
        if live.init is None:
            ending.follow(live)
            health.watch(live)
        await asyncio.to_thread(_recall_pause, live)
        live.state.publish()
        return
    if seen.state is State.CREATED:  # it may have run: an attempt never runs twice
        live.state.advance(seen.attempt, State.RUNNING)
    await ending.finish(live)


def _recall_pause(live: Live) -> None:
    """The kernel knows whether it is paused: that life may have ended before it was noted."""
    is_frozen = live.tools.cgroups.is_frozen(live.record.id)
    seen = live.seen
    if seen is not None and seen.is_paused is not is_frozen:
        live.state.advance(seen.attempt, seen.state, is_paused=is_frozen)


def _after_boot(live: Live) -> None:
    """`always` means after a new boot, too, however the container ended before it."""
    seen, record = live.seen, live.record
    if live.state.is_of_this_boot or seen is None or seen.restart_at_ns:
        return
    is_wanted = record.goal is Goal.RUNNING and seen.attempt == record.attempt
    if is_wanted and record.spec.restart.name is Restart.ALWAYS and seen.started_at_ns:
        live.state.change(restart_at_ns=live.tools.clock.now_ns())


def _open_restart(live: Live) -> None:
    """A restart by policy that was due may have been on its way: it is opened, and so brought to its end.

    Without that, what was made for it would stay when the owner stops the container: nothing would tell that
    this run is over.
    """
    seen = live.seen
    if seen is None or seen.state is not State.EXITED or live.record.attempt != seen.attempt:
        return
    if 0 < seen.restart_at_ns <= live.tools.clock.now_ns():
        live.state.begin_restart()


async def _recall(live: Live) -> None:
    """Take in what was told but is not in the ledger, and end what was not even written down."""
    tools = live.tools
    if not live.state.is_saved and live.record.attempt > 0:
        # The ledger was lost with its disk, or the record is new here.
        live.state.seen = await tools.publisher.last(live.record.id)
    if live.state.running is None and live.init is None and live.has_leftovers:
        await tools.runtime.kill_strays(live.record.id)
