"""One worker per container: decide, act, observe, again.

The reconcile job and the watch of records both only offer a newer record; the worker alone acts,
so nothing happens twice at once to one container. Longer than other modules: all steps of a life
share the same few fields, and one place shows that they never meet.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from labfleet_proto.containers import ContainerRecord, Observation, State
from labfleet_proto.errors import (
    CommandNotRunnableError,
    ConflictError,
    InternalError,
    InvalidRequestError,
    LabfleetError,
    TransientError,
    UnavailableError,
)
from labfleet_proto.signals import number_of
from labfleet_runtime_agent.adapters import conmon
from labfleet_runtime_agent.adapters.archive import RootView
from labfleet_runtime_agent.adapters.attach import Attachment
from labfleet_runtime_agent.adapters.execs import Exec
from labfleet_runtime_agent.adapters.ledger import LedgerEntry
from labfleet_runtime_agent.adapters.processes import ProcessHandle, is_alive
from labfleet_runtime_agent.core import decide as rules
from labfleet_runtime_agent.metrics import STARTS
from labfleet_runtime_agent.service.admission import Admission
from labfleet_runtime_agent.service.launch import Launch, open_view
from labfleet_runtime_agent.service.state import ContainerState
from labfleet_runtime_agent.service.tools import Tools

_RETRY_S = 0.3
_WELCOME_S = 0.5
_EXIT_FILE_LIMIT_S = 5.0
_UNKNOWN_CODE = 137
_HAS_PROCESSES = (State.RUNNING, State.STOPPING)


class Worker:
    """Owns one container on this host."""

    def __init__(self, tools: Tools, admission: Admission, entry: LedgerEntry) -> None:
        self.state = ContainerState(tools, admission, entry)
        self.execs: dict[str, Exec] = {}
        self._tools = tools
        self._admission = admission
        self._init: ProcessHandle | None = None
        self._wake = asyncio.Event()
        self._exited = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[Observation]]] = []
        self._attachments: list[Attachment] = []
        self._files = asyncio.Lock()
        self._tried: tuple[int, float] | None = None

    # -- what others ask

    @property
    def record(self) -> ContainerRecord:
        """Newest desired state that this host has."""
        return self.state.record

    @property
    def seen(self) -> Observation | None:
        """What is true now; None if nothing of it was ever seen here."""
        return self.state.seen

    def offer(self, record: ContainerRecord) -> bool:
        """Take a newer record; False if it is not news."""
        if not rules.is_news(record, self.record):
            return False
        self.state.record = record
        self._wake.set()
        return True

    async def settled(self, generation: int) -> Observation:
        """Wait until the goal of `generation` or a newer one is reached; raise what prevented it."""
        if self.seen is not None and self.is_removed:
            return self.seen
        future: asyncio.Future[Observation] = asyncio.get_running_loop().create_future()
        self._waiters.append((generation, future))
        self._wake.set()
        return await future

    @property
    def is_running(self) -> bool:
        """Whether its processes run."""
        return self.state.is_in(*_HAS_PROCESSES)

    @property
    def is_removed(self) -> bool:
        """Whether nothing of it is left."""
        return self.state.is_in(State.REMOVED)

    @property
    def bundle(self) -> Path:
        """Directory of the container's bundle, while it runs."""
        return self._tools.runtime.bundle_of(self.record.id)

    @property
    def log_file(self) -> Path:
        """What it printed, of all its attempts."""
        return self._tools.ledger.log_of(self.record.id)

    def init(self) -> ProcessHandle:
        """The container's first process. Raises ConflictError if it does not run."""
        if self._init is None or not self.is_running:
            raise ConflictError(f"container {self.record.id} is not running")
        return self._init

    def attach(self, attachment: Attachment) -> None:
        """Attach now if it runs, else just before its next start."""
        if self.is_running:
            attachment.connect(self.bundle)
        else:
            self._attachments.append(attachment)

    def detach(self, attachment: Attachment) -> None:
        """Forget an attachment that still waits."""
        with contextlib.suppress(ValueError):
            self._attachments.remove(attachment)

    async def signal(self, name: str) -> None:
        """Send a signal to its first process. Raises ConflictError, InvalidRequestError."""
        number = number_of(name)
        if self._init is None or not self.is_running or not self._init.send(number):
            raise ConflictError(
                f"Cannot kill container: {self.record.id}: container {self.record.id} is not running"
            )
        await self._tools.emit(self.record, "kill", {"signal": str(number)})

    @contextlib.asynccontextmanager
    async def files(self) -> AsyncIterator[RootView]:
        """Its files as they are now, mounted for the time being if it does not run."""
        snapshots = self._tools.files.snapshots
        base = await self.state.uid_base()
        userns = await asyncio.to_thread(snapshots.userns, base)
        async with self._files:
            if self._init is not None and self.is_running:
                with open_view(self.record, Path(f"/proc/{self._init.pid}/root"), userns) as view:
                    yield view
                return
            layers = await self._tools.files.layers.ensure(self.record.image)
            root = await snapshots.prepare(self.record.id, layers, base)
            try:
                with open_view(self.record, root, userns) as view:
                    yield view
            finally:
                await snapshots.unmount(self.record.id)

    # -- the loop

    async def run(self) -> None:
        """Work until the container is removed."""
        await self._recover()
        while True:
            self._wake.clear()
            generation = self.record.generation
            action = rules.decide(self.record, self.seen)
            if isinstance(action, rules.Nothing):
                self._answer(generation)
                if self.is_removed:
                    return
                await self._wait()
                continue
            try:
                await self._perform(action)
            except TransientError as exc:
                self._tools.log.warning(
                    "container.retry", container=self.record.id, error=exc.message
                )
                await asyncio.sleep(_RETRY_S)

    async def _wait(self) -> None:
        """Wait for a newer record, or for the end of the running container."""
        if not self.state.is_saved:
            # A start mostly follows at once, and writes the entry anyway.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WELCOME_S):
                    await self._wake.wait()
                return
            await self.state.welcome()
        if not self._exited.is_set():
            await self._wake.wait()
        if self._exited.is_set():
            await self._finish()

    def _answer(self, generation: int) -> None:
        """Tell those who wait for the goal of `generation`; it is reached."""
        waiting = []
        for wanted, future in self._waiters:
            if wanted <= generation and self.seen is not None:
                if not future.done():
                    future.set_result(self.seen)
            else:
                waiting.append((wanted, future))
        self._waiters = waiting

    def fail(self, error: LabfleetError) -> None:
        """Tell those who wait for the goal that was tried."""
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(error)
        self._waiters = []

    async def _perform(self, action: rules.Action) -> None:
        match action:
            case rules.Start(attempt):
                await self._start(attempt)
            case rules.Stop(name, grace_s):
                await self._stop(name, grace_s)
            case rules.Remove(with_volumes):
                await self._remove(with_volumes=with_volumes)
            case rules.Settle(reason, code):
                await self._settle(reason, code)
            case rules.Nothing():
                return

    # -- start

    async def _start(self, attempt: int) -> None:
        """Run an attempt. The record may change meanwhile: the attempt is the one of its beginning."""
        record = self.record
        launch = Launch(self._tools, record)
        try:
            base = await self.state.uid_base()
            async with self._tools.start_slots, self._files:
                self._admission.admit(record)
                if not (self.state.is_in(State.CREATED) and self.seen_attempt == attempt):
                    # Counted from here on, whatever becomes of its goal while it is on its way.
                    self.state.advance(attempt, State.PREPARING)
                await self._launch(launch, attempt, base)
        except (LabfleetError, OSError) as exc:
            await self._undo(launch, attempt)
            if isinstance(exc, UnavailableError) and not self._has_tried_enough(attempt):
                raise
            error = InternalError(f"start: {exc}") if isinstance(exc, OSError) else exc
            await self._failed(attempt, error)

    @property
    def seen_attempt(self) -> int:
        """Attempt of the last observation; 0 before the first."""
        return self.seen.attempt if self.seen is not None else 0

    def _has_tried_enough(self, attempt: int) -> bool:
        now_s = self._tools.clock.monotonic_s()
        if self._tried is None or self._tried[0] != attempt:
            self._tried = (attempt, now_s)
        return now_s - self._tried[1] > self._tools.settings.start_limit_s

    async def _launch(self, launch: Launch, attempt: int, base: int) -> None:
        tools = self._tools
        began = time.perf_counter()
        if self._has_leftovers():
            await launch.undo(attempt)
        launched = await launch.create(base)
        self.state.running = launched.running
        self._exited = asyncio.Event()
        self.state.advance(
            attempt,
            State.CREATED,
            pid=launched.running.pid,
            exit_code=None,
            endpoints=launched.interface.endpoints,
            started_at_ns=tools.clock.now_ns(),
            error="",
            error_code="",
        )
        # How to find the processes again, and when they began, before the command runs.
        self.state.note()
        for attachment in self._attachments:
            attachment.connect(self.bundle)
        self._attachments = []
        step = time.perf_counter()
        await tools.runtime.start(self.record.id)
        steps_s = launched.steps_s
        steps_s["start"] = round(time.perf_counter() - step, 6)
        steps_s["total"] = round(time.perf_counter() - began, 6)
        self.state.advance(attempt, State.RUNNING, steps_s=steps_s)
        self.state.publish()
        self._follow()
        STARTS.labels("ok").inc()
        await tools.emit(self.record, "start")
        tools.log.info("container.started", container=self.record.id, steps_s=steps_s)

    async def _failed(self, attempt: int, error: LabfleetError) -> None:
        STARTS.labels("failed").inc()
        self._tools.log.warning("container.failed", container=self.record.id, error=error.message)
        self._drop_attachments()
        self.fail(error)
        self.state.running = None
        await self.state.settle(
            attempt,
            State.EXITED,
            exit_code=_command_code(error),
            error=error.message,
            error_code=error.code,
            pid=0,
            started_at_ns=0,
            finished_at_ns=self._tools.clock.now_ns(),
            endpoints=(),
        )

    async def _settle(self, reason: str, code: int) -> None:
        """An attempt that was called off before it ran: nothing of it stays."""
        attempt = self.record.attempt
        if self._has_leftovers():
            await self._undo(Launch(self._tools, self.record), attempt)
        self.state.running = None
        self._drop_attachments()
        now = self._tools.clock.now_ns()
        await self.state.settle(
            attempt, State.EXITED, exit_code=code, error=reason, pid=0, finished_at_ns=now
        )

    async def _undo(self, launch: Launch, attempt: int) -> None:
        """Leave nothing half-made; what cannot be undone now is undone by the next start or by fsck."""
        try:
            await launch.undo(attempt)
        except LabfleetError as exc:
            self._tools.log.warning("container.undo", container=self.record.id, error=exc.message)

    def _has_leftovers(self) -> bool:
        tools, name = self._tools, self.record.id
        return tools.runtime.knows(name) or tools.files.snapshots.holds(name)

    def _drop_attachments(self) -> None:
        for attachment in self._attachments:
            attachment.cancel()
        self._attachments = []

    # -- end

    def _follow(self) -> None:
        """Watch the monitor and the container's first process."""
        running = self.state.running
        if running is None:
            return
        self._init = ProcessHandle(running.pid, running.started_ticks)
        monitor = ProcessHandle(running.monitor_pid, running.monitor_started_ticks)
        self._admission.spawn(self._await_end(self._init, monitor, self._exited))

    async def _await_end(
        self, init: ProcessHandle, monitor: ProcessHandle, exited: asyncio.Event
    ) -> None:
        try:
            await monitor.ended()
            await init.ended()
        finally:
            monitor.close()
        exited.set()
        self._wake.set()

    async def _finish(self) -> None:
        """The attempt is over: note its code, then take away what ran."""
        code, finished_ns = await self._exit_code()
        if self._init is not None:
            self._init.close()
            self._init = None
        oom = await asyncio.to_thread(self._tools.cgroups.was_oom_killed, self.record.id)
        for one in self.execs.values():
            one.exit_code = 137 if one.exit_code is None else one.exit_code
        self._exited = asyncio.Event()
        self.state.running = None
        attempt = self.seen_attempt
        await self.state.settle(
            attempt,
            State.EXITED,
            exit_code=code,
            finished_at_ns=finished_ns,
            was_oom_killed=oom,
            pid=0,
            endpoints=(),
        )
        self._tools.log.info("container.exited", container=self.record.id, exit_code=code, oom=oom)
        await self._tools.emit(self.record, "die", {"exitCode": str(code)})
        if oom:
            await self._tools.emit(self.record, "oom")
        async with self._files:
            await self._undo(Launch(self._tools, self.record), attempt)

    async def _exit_code(self) -> tuple[int, int]:
        """The code that the monitor wrote; 137 if it was killed before it could."""
        end_s = self._tools.clock.monotonic_s() + _EXIT_FILE_LIMIT_S
        running = self.state.running
        while True:
            found = conmon.exit_code(self.bundle, self.record.id)
            if found is not None:
                return found
            is_watched = running is not None and is_alive(
                running.monitor_pid, running.monitor_started_ticks
            )
            if not is_watched or self._tools.clock.monotonic_s() > end_s:
                return _UNKNOWN_CODE, self._tools.clock.now_ns()
            await asyncio.sleep(0.01)

    async def _stop(self, name: str, grace_s: int) -> None:
        init = self._init
        if init is None:
            await self._finish()
            return
        generation = self.record.generation
        self.state.advance(self.seen_attempt, State.STOPPING)
        init.send(_signal_number(name))
        if not await self._ends_within(grace_s, generation):
            if self.record.generation != generation:
                return  # decide again
            init.send(signal.SIGKILL)
            await self._exited.wait()
        await self._finish()
        await self._tools.emit(self.record, "stop")

    async def _ends_within(self, limit_s: int, generation: int) -> bool:
        """Wait for the end; False after the limit, or at once when a newer record comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not self._exited.is_set() and self.record.generation == generation:
                    await self._wake.wait()
                    self._wake.clear()
        return self._exited.is_set()

    async def _remove(self, *, with_volumes: bool) -> None:
        """Take away everything; the ledger keeps only that it is removed, until the record is gone."""
        tools, record = self._tools, self.record
        attempt = max(record.attempt, self.seen_attempt)
        async with self._files:
            await Launch(tools, record).undo(attempt)
            await tools.files.snapshots.discard(record.id)
            await asyncio.to_thread(self.log_file.unlink, missing_ok=True)
        if with_volumes:
            for mount in record.spec.mounts:
                if mount.is_anonymous:
                    await tools.files.volumes.remove(record.tenant, mount.volume)
        self.state.release_uids()
        self._drop_attachments()
        await self.state.settle(self.seen_attempt, State.REMOVED, pid=0)
        await tools.emit(record, "destroy")

    # -- after a restart of the agent

    async def _recover(self) -> None:
        """Find out what is true of a container that an earlier life of the agent ran."""
        await self._recall()
        seen, running = self.seen, self.state.running
        if seen is None or seen.state < State.CREATED:
            return
        if seen.state >= State.EXITED:
            self.state.publish()  # that life may have ended before it was told
            if seen.state is State.EXITED and self._has_leftovers():
                await self._undo(Launch(self._tools, self.record), seen.attempt)
            return
        if running is not None and is_alive(running.pid, running.started_ticks):
            if seen.state is State.CREATED and not self._tools.runtime.has_begun(running.pid):
                return  # decide() starts it: nothing of this attempt has run
            if seen.state is State.CREATED:
                self.state.advance(seen.attempt, State.RUNNING)
            if self._init is None:
                self._follow()
            self.state.publish()
            return
        if seen.state is State.CREATED:  # it may have run: an attempt never runs twice
            self.state.advance(seen.attempt, State.RUNNING)
        await self._finish()

    async def _recall(self) -> None:
        """Take in what was told but is not in the ledger, and end what was not even written down."""
        if not self.state.is_saved and self.record.attempt > 0:
            # The ledger was lost with its disk, or the record is new here.
            self.state.seen = await self._tools.publisher.last(self.record.id)
        if self.state.running is None and self._init is None and self._has_leftovers():
            await self._tools.runtime.kill_strays(self.record.id)


def _signal_number(name: str) -> int:
    """Number of a signal's name; SIGTERM for one that this host does not know."""
    try:
        return number_of(name)
    except InvalidRequestError:
        return signal.SIGTERM


def _command_code(error: LabfleetError) -> int:
    """Exit code of a start that failed: 126 and 127 as a shell's, else docker's 128."""
    if not isinstance(error, CommandNotRunnableError):
        return 128
    return 126 if "permission denied" in error.message else 127
