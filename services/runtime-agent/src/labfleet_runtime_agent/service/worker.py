"""One worker per container: decide, act, observe, again.

The reconcile job and the watch of records both only offer a newer record; the worker alone acts,
so nothing happens twice at once to one container. What it does stands in `starting`, `ending` and
`recovery`.
"""

import asyncio
import contextlib
from pathlib import Path

from labfleet_proto.containers import ContainerRecord, Observation, State
from labfleet_proto.errors import ConflictError, InternalError, LabfleetError, TransientError
from labfleet_runtime_agent.adapters.archive import RootView
from labfleet_runtime_agent.adapters.attach import Attachment
from labfleet_runtime_agent.adapters.execs import Exec
from labfleet_runtime_agent.adapters.ledger import LedgerEntry
from labfleet_runtime_agent.adapters.processes import ProcessHandle
from labfleet_runtime_agent.adapters.writable_layer import WritableLayer
from labfleet_runtime_agent.core import decide as rules
from labfleet_runtime_agent.service import changing, ending, file_views, recovery, stillness
from labfleet_runtime_agent.service.admission import Admission
from labfleet_runtime_agent.service.live import Live
from labfleet_runtime_agent.service.rewiring import Rewirer
from labfleet_runtime_agent.service.starting import Starter
from labfleet_runtime_agent.service.tools import Tools

_RETRY_S = 0.3
_WELCOME_S = 0.5
_LONGEST_RESTART_WAIT_S = 60.0
"""Also when the clock was set back meanwhile."""


class Worker:
    """Owns one container on this host."""

    def __init__(self, tools: Tools, admission: Admission, entry: LedgerEntry) -> None:
        self._live = Live(tools, admission, entry)
        self._starter = Starter(self._live)
        self._rewirer = Rewirer(self._live)

    # -- what others ask

    @property
    def record(self) -> ContainerRecord:
        """Newest desired state that this host has."""
        return self._live.record

    @property
    def seen(self) -> Observation | None:
        """What is true now; None if nothing of it was ever seen here."""
        return self._live.seen

    @property
    def execs(self) -> dict[str, Exec]:
        """Execs of the running container, by id."""
        return self._live.execs

    @property
    def is_running(self) -> bool:
        """Whether its processes run."""
        return self._live.is_running

    @property
    def is_removed(self) -> bool:
        """Whether nothing of it is left."""
        return self._live.state.is_in(State.REMOVED)

    @property
    def bundle(self) -> Path:
        """Directory of the container's bundle, while it runs."""
        return self._live.bundle

    @property
    def log_file(self) -> Path:
        """What it printed, of all its attempts."""
        return self._live.log_file

    def offer(self, record: ContainerRecord) -> bool:
        """Take a newer record; False if it is not news."""
        if not rules.is_news(record, self.record):
            return False
        self._live.state.record = record
        self._live.state.counted()
        self._live.wake.set()
        return True

    async def settled(self, generation: int) -> Observation:
        """Wait until the goal of `generation` or a newer one is reached; raise what prevented it."""
        if self.seen is not None and self.is_removed:
            return self.seen
        future = self._live.waiters.add(generation)
        self._live.wake.set()
        return await future

    def fail(self, error: LabfleetError) -> None:
        """Tell those who wait for the goal that was tried."""
        self._live.waiters.fail(error)

    def init(self) -> ProcessHandle:
        """The container's first process. Raises ConflictError if it does not run."""
        return self._live.first_process()

    def require_unpaused(self) -> None:
        """Raise ConflictError, in docker's words, for a new process in a paused container."""
        if self.seen is not None and self.seen.is_paused:
            raise ConflictError(
                f"Container {self.record.id} is paused, unpause the container before exec"
            )

    @property
    def is_over(self) -> bool:
        """Whether it neither runs nor is about to be run again by its restart policy."""
        seen = self.seen
        is_begun_again = seen is not None and seen.restart_count and seen.state < State.RUNNING
        return not (self.is_running or self._live.awaits_restart or is_begun_again)

    def attach(self, attachment: Attachment) -> None:
        """Attach now if it runs, else just before its next start."""
        self._live.attach(attachment)

    def detach(self, attachment: Attachment) -> None:
        """Forget an attachment that still waits."""
        self._live.detach(attachment)

    async def signal(self, name: str) -> None:
        """Send a signal to its first process. Raises ConflictError, InvalidRequestError."""
        await changing.send(self._live, name)

    def files(self) -> contextlib.AbstractAsyncContextManager[RootView]:
        """Its files as it sees them, mounted for the time being if it does not run."""
        return file_views.files(self._live)

    def root(self) -> contextlib.AbstractAsyncContextManager[RootView]:
        """Its root file system alone, without what is mounted on it."""
        return file_views.root(self._live)

    def standing_still(self) -> contextlib.AbstractAsyncContextManager[None]:
        """It stands still for as long as its files are read, if it runs."""
        return stillness.standing_still(self._live)

    async def writable_layer(self) -> WritableLayer:
        """Where its changes are."""
        return await file_views.writable_layer(self._live)

    # -- the loop

    async def run(self) -> None:
        """Work until the container is removed."""
        live = self._live
        await recovery.recover(live)
        while True:
            live.wake.clear()
            generation = self.record.generation
            await changing.adjust(live)
            action = rules.decide(self.record, self.seen)
            if isinstance(action, rules.Rewire) and self._rewirer.gave_up(generation):
                action = rules.Nothing()
            if isinstance(action, rules.Thaw) and live.readers_still:
                action = rules.Nothing()  # its end wakes this loop
            if isinstance(action, rules.Nothing | rules.Await):
                live.waiters.answer(generation, self.seen)
                if self.is_removed:
                    return
                until_ns = action.until_ns if isinstance(action, rules.Await) else None
                await self._wait(until_ns)
                continue
            try:
                await self._perform(action)
            except TransientError as exc:
                live.tools.log.warning(
                    "container.retry", container=self.record.id, error=exc.message
                )
                await asyncio.sleep(_RETRY_S)

    async def _wait(self, restart_at_ns: int | None) -> None:
        """Wait for a newer record, the end of the running container, or the time of its restart."""
        live = self._live
        if restart_at_ns is not None:
            wait_s = (restart_at_ns - live.tools.clock.now_ns()) / 1e9
            try:
                async with asyncio.timeout(min(max(wait_s, 0), _LONGEST_RESTART_WAIT_S)):
                    await live.wake.wait()
            except TimeoutError:
                live.state.begin_restart()
            return
        if not live.state.is_saved:
            # A start mostly follows at once, and writes the entry anyway.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WELCOME_S):
                    await live.wake.wait()
                return
            await live.state.welcome()
        if not live.exited.is_set():
            await live.wake.wait()
        if live.exited.is_set():
            await ending.finish(live)

    async def _perform(self, action: rules.Action) -> None:
        match action:
            case rules.Start(attempt):
                await self._starter.start(attempt)
            case rules.Stop(name, grace_s):
                await ending.stop(self._live, name, grace_s)
            case rules.Remove(with_volumes):
                await ending.remove(self._live, with_volumes=with_volumes)
            case rules.Settle(reason, code):
                await ending.settle(self._live, reason, code)
            case rules.Rewire():
                await self._rewirer.rewire()
            case rules.Freeze():
                await self._freeze()
            case rules.Thaw():
                await changing.thaw(self._live)
            case rules.Nothing() | rules.Await():
                return

    async def _freeze(self) -> None:
        """Pause it; one that will not stop is told to those who wait, and tried again."""
        try:
            await changing.freeze(self._live)
        except InternalError as exc:
            self._live.waiters.fail(exc)
            await asyncio.sleep(_RETRY_S)
