"""An attempt of a container from its beginning until its command runs, or why it could not."""

import asyncio
import time

from labfleet_proto.containers import ContainerRecord, State
from labfleet_proto.errors import (
    CommandNotRunnableError,
    InternalError,
    LabfleetError,
    TransientError,
    UnavailableError,
)
from labfleet_runtime_agent.core import power, probing, restarts
from labfleet_runtime_agent.metrics import STARTS
from labfleet_runtime_agent.service import ending, health, place_events
from labfleet_runtime_agent.service.launch import Launch
from labfleet_runtime_agent.service.live import Live

_FAILED_CODE = 128


class Starter:
    """Starts one container; it knows how long an attempt was tried already."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._tried: tuple[int, float] | None = None
        """Number of the run, and since when."""

    async def start(self, attempt: int) -> None:
        """Run an attempt. The record may change meanwhile: the attempt is the one of its beginning.

        Raises UnavailableError to be called again.
        """
        live = self._live
        record = live.record
        launch = Launch(live.tools, record)
        run = live.state.run_of(attempt)
        try:
            base = await live.state.uid_base()
            async with live.tools.start_slots, live.files:
                power.check_owner(record)
                live.admission.admit(record)
                if not (live.state.is_in(State.CREATED) and live.seen_attempt == attempt):
                    # Counted from here on, whatever becomes of its goal while it is on its way.
                    live.state.advance(attempt, State.PREPARING)
                run = live.state.run_of(attempt)
                await self._launch(launch, attempt, base)
        except (LabfleetError, OSError) as exc:
            await live.undo(launch, run)
            if isinstance(exc, UnavailableError) and not self._has_tried_enough(run):
                raise
            error = InternalError(f"start: {exc}") if isinstance(exc, OSError) else exc
            await self._failed(attempt, error)

    def _has_tried_enough(self, run: int) -> bool:
        """Nobody waits for a restart by policy: it is tried until it is there."""
        tools, seen = self._live.tools, self._live.seen
        if seen is not None and seen.restart_count:
            return False
        now_s = tools.clock.monotonic_s()
        if self._tried is None or self._tried[0] != run:
            self._tried = (run, now_s)
        return now_s - self._tried[1] > tools.settings.start_limit_s

    async def _launch(self, launch: Launch, attempt: int, base: int) -> None:
        live = self._live
        tools = live.tools
        began = time.perf_counter()
        if live.has_leftovers:
            await launch.undo(live.state.run_of(attempt))
        launched = await launch.create(base, live.state.run_of(attempt))
        live.state.running = launched.running
        live.limits = launched.limits
        live.exited = asyncio.Event()
        before = live.seen.health if live.seen is not None else None
        live.state.advance(
            attempt,
            State.CREATED,
            pid=launched.running.pid,
            exit_code=None,
            endpoints=launched.interface.endpoints,
            started_at_ns=tools.clock.now_ns(),
            error="",
            error_code="",
            health=probing.begun(before) if _is_checked(live.record) else None,
        )
        # How to find the processes again, and when they began, before the command runs.
        live.state.note()
        live.connect_attachments()
        step = time.perf_counter()
        await tools.runtime.start(live.record.id)
        steps_s = launched.steps_s
        steps_s["start"] = round(time.perf_counter() - step, 6)
        steps_s["total"] = round(time.perf_counter() - began, 6)
        live.state.advance(attempt, State.RUNNING, steps_s=steps_s)
        live.state.publish()
        ending.follow(live)
        health.watch(live)
        STARTS.labels("ok").inc()
        await place_events.networks(tools, live.record, "connect", launched.interface.endpoints)
        await place_events.volumes(tools, live.record, "mount")
        await tools.emit(live.record, "start")
        tools.log.info("container.started", container=live.record.id, steps_s=steps_s)

    async def _failed(self, attempt: int, error: LabfleetError) -> None:
        live = self._live
        STARTS.labels("failed").inc()
        live.tools.log.warning("container.failed", container=live.record.id, error=error.message)
        live.drop_attachments()
        live.waiters.fail(error)
        live.state.running = None
        wait_ms = self._again_ms(error)
        now_ns = live.tools.clock.now_ns()
        await live.state.settle(
            attempt,
            State.EXITED,
            exit_code=_command_code(error),
            error=error.message,
            error_code=error.code,
            pid=0,
            started_at_ns=now_ns if wait_ms else 0,
            finished_at_ns=now_ns,
            endpoints=(),
            restart_at_ns=now_ns + wait_ms * 1_000_000 if wait_ms else 0,
            restart_delay_ms=wait_ms,
        )

    def _again_ms(self, error: LabfleetError) -> int:
        """How long to wait before a restart by policy that the host could not do now; 0: no more."""
        seen, policy = self._live.seen, self._live.record.spec.restart
        if seen is None or not seen.restart_count or not isinstance(error, TransientError):
            return 0
        ending = restarts.Ending(_FAILED_CODE, 0, seen.restart_count, seen.restart_delay_ms)
        return restarts.wait_ms(policy, ending) or 0


def _is_checked(record: ContainerRecord) -> bool:
    check = record.spec.healthcheck
    return check is not None and bool(check.argv)


def _command_code(error: LabfleetError) -> int:
    """Exit code of a start that failed: 126 and 127 as a shell's, else docker's 128."""
    if not isinstance(error, CommandNotRunnableError):
        return _FAILED_CODE
    return 126 if "permission denied" in error.message else 127
