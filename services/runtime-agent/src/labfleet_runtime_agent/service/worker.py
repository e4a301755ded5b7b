"""One worker per container: decide, act, observe, again.

The reconcile job and the watch of records both only offer a newer record; the worker alone acts,
so nothing happens twice at once to one container.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from labfleet_proto.containers import ContainerRecord, Observation, State, check_transition
from labfleet_proto.errors import (
    CommandNotRunnableError,
    ConflictError,
    LabfleetError,
    NoRoomError,
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
from labfleet_runtime_agent.service.tools import Tools

_RETRY_S = 0.3
_EXIT_FILE_LIMIT_S = 5.0
_UNKNOWN_CODE = 137


class Worker:
    """Owns one container on this host."""

    def __init__(self, tools: Tools, admission: Admission, entry: LedgerEntry) -> None:
        self.record = entry.record
        self.seen = entry.seen
        self.running = entry.running
        self._uid_slot = entry.uid_slot
        self._is_saved = entry.boot_id != ""
        self._is_of_this_boot = entry.boot_id in ("", tools.boot_id)
        self._saving = asyncio.Lock()
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

    def offer(self, record: ContainerRecord) -> bool:
        """Take a newer record; False if it is not news."""
        if not rules.is_news(record, self.record):
            return False
        self.record = record
        self._wake.set()
        return True

    async def settled(self, generation: int) -> Observation:
        """Wait until the goal of `generation` or a newer one is reached; raise what prevented it."""
        future: asyncio.Future[Observation] = asyncio.get_running_loop().create_future()
        self._waiters.append((generation, future))
        self._wake.set()
        return await future

    @property
    def is_running(self) -> bool:
        """Whether its processes run."""
        return self.seen is not None and self.seen.state in (State.RUNNING, State.STOPPING)

    @property
    def is_removed(self) -> bool:
        """Whether nothing of it is left."""
        return self.seen is not None and self.seen.state is State.REMOVED

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
        tools = self._tools
        base = await self._uid_base()
        userns = await asyncio.to_thread(tools.files.snapshots.userns, base)
        async with self._files:
            if self._init is not None and self.is_running:
                with open_view(self.record, Path(f"/proc/{self._init.pid}/root"), userns) as view:
                    yield view
                return
            layers = await tools.files.layers.ensure(self.record.image)
            root = await tools.files.snapshots.prepare(self.record.id, layers, base)
            try:
                with open_view(self.record, root, userns) as view:
                    yield view
            finally:
                await tools.files.snapshots.unmount(self.record.id)

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
                if not self._is_saved:
                    await self._note()
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
        if self._exited.is_set():
            await self._finish()
            return
        await self._wake.wait()
        if self._exited.is_set():
            await self._finish()

    def _answer(self, generation: int) -> None:
        for wanted, future in self._waiters:
            if wanted <= generation and not future.done() and self.seen is not None:
                future.set_result(self.seen)
        self._waiters = [(w, f) for w, f in self._waiters if not f.done() and w > generation]

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
                await self._observe(State.EXITED, exit_code=code, error=reason)
            case rules.Nothing():
                return

    async def _observe(self, state: State, **facts: object) -> None:
        """Note a new state of the wanted attempt, durably here, then on its way to the store."""
        attempt = self.record.attempt
        now = self._tools.clock.now_ns()
        if self.seen is None or self.seen.attempt < attempt:
            old = Observation(
                id=self.record.id,
                tenant=self.record.tenant,
                host=self._tools.host,
                generation=self.record.generation,
                attempt=attempt,
                state=State.ASSIGNED,
            )
        else:
            old = self.seen
        if old.state is not state:
            check_transition(self.record.id, old.state, state)
        if state is State.EXITED and "finished_at_ns" not in facts:
            facts["finished_at_ns"] = now
        seen = old.model_copy(
            update={"state": state, "generation": self.record.generation, **facts}
        )
        self.seen = seen
        await self._save()
        self._admission.changed(self.record, seen)
        self._tools.publish(seen)

    def _entry(self) -> LedgerEntry:
        return LedgerEntry(
            record=self.record,
            seen=self.seen,
            running=self.running,
            boot_id=self._tools.boot_id,
            uid_slot=self._uid_slot,
        )

    async def _save(self) -> None:
        """Write down durably what is known now; one after the other, so that the newest is last."""
        async with self._saving:
            await asyncio.to_thread(self._tools.ledger.save, self._entry())
            self._is_saved = True

    async def _note(self) -> None:
        """Keep a record that was just heard of, with its range of ids if one is free already."""
        with contextlib.suppress(NoRoomError):
            self._uid_slot = self._tools.files.slots.take(self.record.id)
        await self._save()

    async def _uid_base(self) -> int:
        """First of its user ids; durably its own before anything can be written with them."""
        slots = self._tools.files.slots
        if self._uid_slot is None:
            self._uid_slot = slots.take(self.record.id)
            await self._save()
        return slots.first_id(self._uid_slot)

    # -- start

    async def _start(self, attempt: int) -> None:
        if self.record.attempt != attempt:
            return
        launch = Launch(self._tools, self.record)
        began = time.perf_counter()
        try:
            base = await self._uid_base()
            async with self._tools.start_slots, self._files:
                self._admission.admit(self.record)
                await self._launch(launch, base, began)
        except LabfleetError as exc:
            await self._undo(launch, attempt)
            if isinstance(exc, UnavailableError) and not self._has_tried_enough(attempt):
                raise
            await self._failed(exc, _command_code(exc))

    def _has_tried_enough(self, attempt: int) -> bool:
        now_s = self._tools.clock.monotonic_s()
        if self._tried is None or self._tried[0] != attempt:
            self._tried = (attempt, now_s)
        return now_s - self._tried[1] > self._tools.settings.start_limit_s

    async def _launch(self, launch: Launch, base: int, began: float) -> None:
        tools = self._tools
        if self._has_leftovers():
            await launch.undo(self.record.attempt)
        launched = await launch.create(base)
        self.running = launched.running
        self._exited = asyncio.Event()
        seen = {
            "pid": launched.running.pid,
            "exit_code": None,
            "endpoints": launched.interface.endpoints,
            # Written before the command runs: the same time is told after a crash of the agent.
            "started_at_ns": tools.clock.now_ns(),
        }
        self._created(seen)
        self._connect_attachments()
        step = time.perf_counter()
        await tools.runtime.start(self.record.id)
        launched.steps_s["start"] = round(time.perf_counter() - step, 6)
        launched.steps_s["total"] = round(time.perf_counter() - began, 6)
        await self._became_running(launched.steps_s)

    def _created(self, facts: Mapping[str, object]) -> None:
        """Write down how to find the processes again, before the command runs."""
        if self.seen is not None and self.seen.attempt == self.record.attempt:
            self.seen = self.seen.model_copy(update={**facts, "state": State.CREATED})
        else:
            self.seen = Observation(
                id=self.record.id,
                tenant=self.record.tenant,
                host=self._tools.host,
                generation=self.record.generation,
                attempt=self.record.attempt,
                state=State.CREATED,
            ).model_copy(update=facts)
        # The flush goes on beside the start: should the power fail meanwhile, the command has run
        # for a moment in an attempt that nobody was told of.
        self._tools.ledger.note(self._entry())
        self._admission.spawn(self._save())

    async def _became_running(self, steps_s: dict[str, float]) -> None:
        if self.seen is None:
            return
        self.seen = self.seen.model_copy(
            update={
                "state": State.RUNNING,
                "generation": self.record.generation,
                "steps_s": steps_s,
                "error": "",
                "error_code": "",
            }
        )
        self._admission.changed(self.record, self.seen)
        self._tools.publish(self.seen)
        STARTS.labels("ok").inc()
        self._follow()
        await self._tools.emit(self.record, "start")
        self._tools.log.info("container.started", container=self.record.id, steps_s=steps_s)

    async def _failed(self, error: LabfleetError, code: int) -> None:
        STARTS.labels("failed").inc()
        self._tools.log.warning("container.failed", container=self.record.id, error=error.message)
        for attachment in self._attachments:
            attachment.cancel()
        self._attachments = []
        self.fail(error)
        await self._observe(
            State.EXITED,
            exit_code=code,
            error=error.message,
            error_code=error.code,
            pid=0,
            started_at_ns=0,
            endpoints=(),
        )

    async def _undo(self, launch: Launch, attempt: int) -> None:
        """Leave nothing half-made; what cannot be undone now is undone by the next start or by fsck."""
        try:
            await launch.undo(attempt)
        except LabfleetError as exc:
            self._tools.log.warning("container.undo", container=self.record.id, error=exc.message)

    def _has_leftovers(self) -> bool:
        tools = self._tools
        return (
            self.record.id in tools.runtime.known()
            or self.record.id in tools.files.snapshots.holders()
        )

    def _connect_attachments(self) -> None:
        for attachment in self._attachments:
            attachment.connect(self.bundle)
        self._attachments = []

    # -- end

    def _follow(self) -> None:
        """Watch the monitor and the container's first process."""
        if self.running is None:
            return
        self._init = ProcessHandle(self.running.pid, self.running.started_ticks)
        monitor = ProcessHandle(self.running.monitor_pid, self.running.monitor_started_ticks)
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
        self.running = None
        await self._observe_end(code, finished_ns, oom=oom)
        attempt = self.seen.attempt if self.seen else self.record.attempt
        await self._tools.emit(self.record, "die", {"exitCode": str(code)})
        if oom:
            await self._tools.emit(self.record, "oom")
        async with self._files:
            await self._undo(Launch(self._tools, self.record), attempt)

    async def _observe_end(self, code: int, finished_ns: int, *, oom: bool) -> None:
        if self.seen is None:
            return
        check_transition(self.record.id, self.seen.state, State.EXITED)
        self.seen = self.seen.model_copy(
            update={
                "state": State.EXITED,
                "exit_code": code,
                "finished_at_ns": finished_ns,
                "was_oom_killed": oom,
                "pid": 0,
                "endpoints": (),
                "generation": self.record.generation,
            }
        )
        await self._save()
        self._admission.changed(self.record, self.seen)
        self._tools.publish(self.seen)
        self._tools.log.info("container.exited", container=self.record.id, exit_code=code, oom=oom)

    async def _exit_code(self) -> tuple[int, int]:
        """The code that the monitor wrote; 137 if it was killed before it could."""
        end_s = self._tools.clock.monotonic_s() + _EXIT_FILE_LIMIT_S
        while True:
            found = conmon.exit_code(self.bundle, self.record.id)
            if found is not None:
                return found
            monitor = self.running.monitor_pid if self.running else 0
            ticks = self.running.monitor_started_ticks if self.running else 0
            if not is_alive(monitor, ticks) or self._tools.clock.monotonic_s() > end_s:
                return _UNKNOWN_CODE, self._tools.clock.now_ns()
            await asyncio.sleep(0.01)

    async def _stop(self, name: str, grace_s: int) -> None:
        init = self._init
        if init is None:
            self._exited.set()
            await self._finish()
            return
        if self.seen is not None and self.seen.state is State.RUNNING:
            self.seen = self.seen.model_copy(update={"state": State.STOPPING})
        init.send(number_of(name))
        if not await self._ends_within(grace_s):
            if self._wake.is_set() and not self._exited.is_set():
                return  # a newer record: decide again
            init.send(signal.SIGKILL)
            await self._ends_within(None)
        if self._exited.is_set():
            await self._finish()
            await self._tools.emit(self.record, "stop")

    async def _ends_within(self, limit_s: int | None) -> bool:
        """Wait for the end; False after the limit, or at once when a newer record comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not self._exited.is_set():
                    await self._wake.wait()
                    if not self._exited.is_set():
                        return False
        return self._exited.is_set()

    async def _remove(self, *, with_volumes: bool) -> None:
        """Take away everything; the ledger keeps only that it is removed, until the record is gone."""
        tools = self._tools
        async with self._files:
            attempt = max(self.record.attempt, self.seen.attempt if self.seen else 0)
            await Launch(tools, self.record).undo(attempt)
            await tools.files.snapshots.discard(self.record.id)
        if with_volumes:
            for mount in self.record.spec.mounts:
                if mount.is_anonymous:
                    await tools.files.volumes.remove(self.record.tenant, mount.volume)
        tools.files.slots.release(self.record.id)
        self._uid_slot = None
        for attachment in self._attachments:
            attachment.cancel()
        self._attachments = []
        code = self.seen.exit_code if self.seen else None
        old = self.seen or Observation(
            id=self.record.id,
            tenant=self.record.tenant,
            host=tools.host,
            generation=self.record.generation,
            attempt=self.record.attempt,
            state=State.ASSIGNED,
        )
        self.seen = old.model_copy(
            update={
                "state": State.REMOVED,
                "generation": self.record.generation,
                "exit_code": code,
                "pid": 0,
            }
        )
        await self._save()
        self._admission.changed(self.record, self.seen)
        tools.publish(self.seen)
        await tools.emit(self.record, "destroy")

    # -- after a restart of the agent

    async def _recover(self) -> None:
        """Find out what is true of a container that an earlier life of the agent ran."""
        if self.seen is None or self.seen.state >= State.EXITED:
            if self.seen is not None:
                self._tools.publish(self.seen)  # that life may have ended before it was told
            if self.seen is not None and self.seen.state is State.EXITED and self._has_leftovers():
                await self._undo(Launch(self._tools, self.record), self.seen.attempt)
            return
        running = self.running
        if running is not None and is_alive(running.pid, running.started_ticks):
            if self.seen.state is State.CREATED and not await self._has_begun():
                return  # decide() starts it: nothing of this attempt has run
            if self.seen.state is not State.RUNNING:
                self.seen = self.seen.model_copy(update={"state": State.RUNNING})
            self._follow()
            self._tools.publish(self.seen)
            return
        if (
            self.seen.state is State.CREATED
            and self._is_of_this_boot
            and conmon.exit_code(self.bundle, self.record.id) is None
        ):
            return
        if self.seen.state is State.CREATED:  # it may have run: an attempt never runs twice
            self.seen = self.seen.model_copy(update={"state": State.RUNNING})
        await self._finish()

    async def _has_begun(self) -> bool:
        """Whether crun was told to start it: then its first process is no longer crun itself."""
        return await self._tools.runtime.status(self.record.id) == "running"


def _command_code(error: LabfleetError) -> int:
    """Exit code of a start that failed: 126 and 127 as a shell's, else docker's 128."""
    if not isinstance(error, CommandNotRunnableError):
        return 128
    return 126 if "permission denied" in error.message else 127


def fresh(record: ContainerRecord) -> LedgerEntry:
    """The entry of a container that this host hears of for the first time."""
    return LedgerEntry(record=record, seen=None, running=None, boot_id="")
