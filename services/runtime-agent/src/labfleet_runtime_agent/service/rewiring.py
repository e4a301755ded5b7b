"""Networks that a running container joins and leaves."""

from labfleet_proto.containers import State
from labfleet_proto.errors import InternalError, LabfleetError, UnavailableError
from labfleet_runtime_agent.service import place_events
from labfleet_runtime_agent.service.launch import Launch
from labfleet_runtime_agent.service.live import Live


class Rewirer:
    """Lets the interfaces of one container follow its record."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._failed = 0
        """Generation whose networks could not be joined."""

    def gave_up(self, generation: int) -> bool:
        """Whether this wish was tried and cannot be: it is not tried again before the next one."""
        return self._failed == generation

    async def rewire(self) -> None:
        """Join and leave networks; what cannot be is told to those who wait.

        Raises UnavailableError to be called again.
        """
        live = self._live
        record, attempt = live.record, live.seen_attempt
        old = live.seen.endpoints if live.seen is not None else ()
        run = live.state.run_of(attempt)
        try:
            interface = await Launch(live.tools, record).rewire(run, old)
        except UnavailableError:
            raise
        except (LabfleetError, OSError) as exc:
            self._failed = record.generation
            live.tools.log.warning("container.unwired", container=record.id, error=str(exc))
            live.waiters.fail(
                exc if isinstance(exc, LabfleetError) else InternalError(f"rewire: {exc}")
            )
            return
        new = interface.endpoints
        live.state.advance(attempt, State.RUNNING, endpoints=new)
        live.state.note()
        live.state.publish()
        had, has = ({each.network for each in side} for side in (old, new))
        left = [each for each in old if each.network not in has]
        await place_events.networks(live.tools, record, "disconnect", left)
        joined = [each for each in new if each.network not in had]
        await place_events.networks(live.tools, record, "connect", joined)
