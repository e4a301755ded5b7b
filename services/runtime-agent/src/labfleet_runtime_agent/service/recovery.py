"""After a restart of the agent: what is true of a container that an earlier life of it ran."""

from labfleet_proto.containers import State
from labfleet_runtime_agent.adapters.processes import is_alive
from labfleet_runtime_agent.service import ending
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
            await live.undo(Launch(live.tools, live.record), seen.attempt)
        return
    if running is not None and is_alive(running.pid, running.started_ticks):
        if seen.state is State.CREATED and not live.tools.runtime.has_begun(running.pid):
            return  # decide() starts it: nothing of this attempt has run
        if seen.state is State.CREATED:
            live.state.advance(seen.attempt, State.RUNNING)
        if live.init is None:
            ending.follow(live)
        live.state.publish()
        return
    if seen.state is State.CREATED:  # it may have run: an attempt never runs twice
        live.state.advance(seen.attempt, State.RUNNING)
    await ending.finish(live)


async def _recall(live: Live) -> None:
    """Take in what was told but is not in the ledger, and end what was not even written down."""
    tools = live.tools
    if not live.state.is_saved and live.record.attempt > 0:
        # The ledger was lost with its disk, or the record is new here.
        live.state.seen = await tools.publisher.last(live.record.id)
    if live.state.running is None and live.init is None and live.has_leftovers:
        await tools.runtime.kill_strays(live.record.id)
