"""A thin worker as the agent's: decide, act, observe, again; every yield is a place to crash."""

from typing import TYPE_CHECKING, Any

from tests.simulation.loop import Future, Signal, Steps, within
from tests.simulation.machine import LedgerEntry, Proc

from labfleet_proto.containers import (
    ContainerRecord,
    Goal,
    Observation,
    State,
    check_transition,
)
from labfleet_proto.errors import LabfleetError, NoRoomError, TransientError, UnavailableError
from labfleet_proto.placement import takes_room
from labfleet_proto.resources import fits
from labfleet_proto.restarts import Restart
from labfleet_runtime_agent.core import decide as rules
from labfleet_runtime_agent.core import restarts

if TYPE_CHECKING:
    from tests.simulation.agent import Agent

_RETRY_S = 0.3
_NETWORK_LIMIT_S = 6.0
_START_LIMIT_S = 25.0
_DISK_S = 0.001
_RUNTIME_S = 0.02


class Worker:
    """Owns one container on this host."""

    def __init__(self, agent: "Agent", entry: LedgerEntry) -> None:
        self.record = entry.record
        self.seen = entry.seen
        self.has_ended = False
        self._pid = entry.pid
        self._boot = entry.boot
        self._agent = agent
        self._machine = agent.machine
        self._wake = Signal(agent.loop)
        self._proc: Proc | None = None
        self._waiters: list[tuple[int, Future]] = []
        self._tried: tuple[int, float] | None = None

    def offer(self, record: ContainerRecord) -> None:
        """Take a newer record."""
        is_news = rules.is_news(record, self.record)
        if is_news or "no generation check" in self._agent.bugs:
            self.record = record
            self._wake.set()

    def settled(self, generation: int) -> Future:
        """Wait until the goal of `generation` or a newer one is reached."""
        future = Future(self._agent.loop)
        if self.has_ended:
            future.set(self.seen)
        else:
            self._waiters.append((generation, future))
            self._wake.set()
        return future

    # -- the loop

    def run(self) -> Steps:
        yield from self._recover()
        while True:
            self._wake.clear()
            generation = self.record.generation
            action = rules.decide(self.record, self.seen)
            if isinstance(action, rules.Nothing | rules.Await):
                self._answer(generation)
                if self.seen is not None and self.seen.state is State.REMOVED:
                    break
                if isinstance(action, rules.Await):
                    yield from self._await_restart(action.until_ns)
                else:
                    yield from self._wait()
                continue
            try:
                yield from self._perform(action)
            except TransientError as exc:
                self._agent.note(f"{self.record.name} tries again: {exc.message}")
                yield _RETRY_S
        self.has_ended = True
        self._agent.forget_if_gone(self)

    def _wait(self) -> Steps:
        """Wait for a newer record, or for the end of what runs."""
        if self._proc is not None:
            self._proc.ended.wait().then(lambda _: self._wake.set())
        yield self._wake.wait()
        if self._proc is not None and not self._proc.is_alive:
            yield from self._finish()

    def _await_restart(self, until_ns: int) -> Steps:
        """Wait for a newer record, or for the time of the next run."""
        wait_s = max(until_ns / 1e9 - self._agent.loop.now, 0.0)
        try:
            yield from within(self._agent.loop, self._wake.wait(), wait_s, "a restart")
        except UnavailableError:
            self._begin_restart()

    def _begin_restart(self) -> None:
        """Open the next run of the attempt."""
        old = self.seen
        assert old is not None
        more = 0 if "a restart is no new run" in self._agent.bugs else 1
        self.seen = self._blank(old.attempt).model_copy(
            update={
                "restarts": old.restarts + more,
                "restart_count": old.restart_count + 1,
                "restart_delay_ms": old.restart_delay_ms,
                "started_at_ns": old.started_at_ns,
            }
        )

    def _run_of(self, attempt: int) -> int:
        """Number of the newest run of an attempt, begun or about to begin."""
        if self.seen is None:
            return attempt
        return max(attempt, self.seen.attempt) + self.seen.restarts

    def _answer(self, generation: int) -> None:
        for wanted, future in self._waiters:
            if wanted <= generation:
                future.set(self.seen)
        self._waiters = [pair for pair in self._waiters if not pair[1].is_done]

    def _perform(self, action: rules.Action) -> Steps:
        self._agent.note(f"{self.record.name} {action}")
        match action:
            case rules.Start(attempt):
                yield from self._start(self.record, attempt)
            case rules.Stop(name, grace_s):
                yield from self._stop(name, grace_s)
            case rules.Remove():
                yield from self._remove()
            case rules.Settle(reason, code):
                attempt = self.record.attempt
                yield from self._undo(self._run_of(attempt))
                yield from self._observe(attempt, State.EXITED, exit_code=code, error=reason)

    def _observe(self, attempt: int, state: State, *, public: bool = True, **facts: Any) -> Steps:
        """Note a state, durably here, then on its way to the store."""
        old = self.seen
        if old is None or old.attempt < attempt:
            old = self._blank(attempt)
        if old.state is not state:
            check_transition(self.record.id, old.state, state)
        facts = {"state": state, "generation": self.record.generation, **facts}
        self.seen = old.model_copy(update=facts)
        yield from self._save()
        yield _DISK_S
        if public:
            self._agent.publish(self.seen)

    def _blank(self, attempt: int) -> Observation:
        return Observation(
            id=self.record.id,
            tenant=self.record.tenant,
            host=self._machine.name,
            generation=self.record.generation,
            attempt=attempt,
            state=State.ASSIGNED,
            restarts=self.seen.restarts if self.seen is not None else 0,
        )

    def _save(self) -> Steps:
        yield _DISK_S
        self._machine.ledger[self.record.id] = LedgerEntry(
            self.record, self.seen, self._pid, self._machine.boot
        )

    # -- start

    def _start(self, record: ContainerRecord, attempt: int) -> Steps:
        try:
            self._admit(record, attempt)
            yield from self._launch(record, attempt)
        except LabfleetError as exc:
            try:
                yield from self._undo(self._run_of(attempt))
            except LabfleetError:
                self._agent.note(f"{record.name}: undo failed")
            if isinstance(exc, UnavailableError) and not self._has_tried_enough(attempt):
                raise
            for _, waiter in self._waiters:
                waiter.set(error=exc)
            self._waiters = []
            facts = {"exit_code": 128, "error": exc.message, **self._again(exc)}
            yield from self._observe(attempt, State.EXITED, **facts)

    def _again(self, exc: LabfleetError) -> dict[str, Any]:
        """When a restart by policy that the host could not do now is tried again."""
        seen = self.seen
        if seen is None or not seen.restart_count or not isinstance(exc, TransientError):
            return {}
        ending = restarts.Ending(128, 0, seen.restart_count, seen.restart_delay_ms)
        return self._restart_at(restarts.wait_ms(self.record.spec.restart, ending))

    def _restart_at(self, wait_ms: int | None) -> dict[str, Any]:
        if wait_ms is None:
            return {"restart_at_ns": 0, "restart_delay_ms": 0}
        at_ns = self._agent.loop.now_ns() + wait_ms * 1_000_000
        return {"restart_at_ns": at_ns, "restart_delay_ms": wait_ms}

    def _admit(self, record: ContainerRecord, attempt: int) -> None:
        """The host has the last word. Raises NoRoomError.

        From here on it takes room, whatever its goal becomes before it runs.
        """
        mine = record.spec.resources() if takes_room(record, self.seen) else None
        free = self._agent.free()
        if not fits(record.spec.resources(), free + mine if mine else free):
            raise NoRoomError(f"this host has no room left for {record.name}")
        self._prepare(attempt)

    def _prepare(self, attempt: int) -> None:
        if self.seen is None or self.seen.attempt < attempt:
            self.seen = self._blank(attempt)
        if self.seen.state is State.ASSIGNED:
            self.seen = self.seen.model_copy(update={"state": State.PREPARING})

    def _has_tried_enough(self, attempt: int) -> bool:
        if self.seen is not None and self.seen.restart_count:
            return False  # nobody waits for a restart by policy
        now = self._agent.loop.now
        if self._tried is None or self._tried[0] != attempt:
            self._tried = (attempt, now)
        return now - self._tried[1] > _START_LIMIT_S

    def _launch(self, record: ContainerRecord, attempt: int) -> Steps:
        machine = self._machine
        if record.id in machine.procs or record.id in machine.spaces:
            yield from self._undo(self._run_of(attempt))
        run = self._run_of(attempt)
        slot = machine.take_slot(record.id)
        yield _DISK_S
        address = f"allocate.{machine.name}"
        yield from self._agent.bus.call(address, (record, run), _NETWORK_LIMIT_S)
        machine.unpack(record.id, slot)
        yield _RUNTIME_S
        proc = machine.create(record, attempt, run)
        yield _RUNTIME_S
        self._proc, self._pid = proc, proc.pid
        if "attempt of a newer record" in self._agent.bugs:
            attempt = self.record.attempt
        self._prepare(attempt)
        if "no ledger before start" not in self._agent.bugs:
            yield from self._observe(attempt, State.CREATED, public=False)
        machine.start(record.id)
        yield _RUNTIME_S
        self._became_running()

    def _became_running(self) -> None:
        assert self.seen is not None
        facts = {"state": State.RUNNING, "started_at_ns": self._agent.loop.now_ns(), "error": ""}
        self.seen = self.seen.model_copy(update=facts | {"generation": self.record.generation})
        self._agent.publish(self.seen)

    def _undo(self, run: int) -> Steps:
        """Take away what runs or was made for running; again is nothing."""
        self._machine.delete(self.record.id)
        yield _RUNTIME_S
        address = f"release.{self._machine.name}"
        yield from self._agent.bus.call(address, (self.record, run), _NETWORK_LIMIT_S)

    # -- end

    def _stop(self, name: str, grace_s: int) -> Steps:
        proc = self._proc
        assert self.seen is not None
        if proc is None:
            yield from self._finish()
            return
        self.seen = self.seen.model_copy(update={"state": State.STOPPING})
        self._machine.signal(proc, is_kill=name == "SIGKILL")
        if not (yield from self._ends_within(proc, grace_s)):
            if self._wake.is_set and proc.is_alive:
                return  # a newer record: decide again
            self._machine.signal(proc, is_kill=True)
            yield from self._ends_within(proc, 1e6)
        if not proc.is_alive:
            yield from self._finish()

    def _ends_within(self, proc: Proc, limit_s: float) -> Steps:
        """Wait for the end; False after the limit, or at once when a newer record comes."""
        either = Future(self._agent.loop)
        for future in (proc.ended.wait(), self._wake.wait()):
            future.then(lambda _: either.set())
        try:
            yield from within(self._agent.loop, either, limit_s, "the end")
        except UnavailableError:
            return False
        return not proc.is_alive

    def _finish(self) -> Steps:
        """The attempt is over: note its code, then take away what ran."""
        code = self._machine.exit_codes.get(self.record.id)
        facts = {"exit_code": 137, "error": "its end is unknown"}
        if code is not None:
            facts = {"exit_code": code, "error": ""}
        self._proc, self._pid = None, 0
        seen = self.seen
        assert seen is not None
        facts |= self._restart_at(self._wait_ms(seen, code))
        if "the wait is forgotten" in self._agent.bugs and self._agent.loop.rng.random() < 0.5:
            facts |= {"restart_at_ns": 0}
        yield from self._observe(seen.attempt, State.EXITED, **facts)
        try:
            yield from self._undo(seen.run)
        except UnavailableError:
            self._agent.note(f"{self.record.name}: undo failed")

    def _wait_ms(self, seen: Observation, code: int | None) -> int | None:
        """How long the restart policy waits before the next run; None if this was the last."""
        record = self.record
        if record.goal is not Goal.RUNNING or record.attempt != seen.attempt:
            return None
        ending = restarts.Ending(
            exit_code=137 if code is None else code,
            ran_s=self._agent.loop.now - seen.started_at_ns / 1e9,
            restart_count=seen.restart_count,
            last_wait_ms=seen.restart_delay_ms,
            is_of_older_boot=self._boot not in (0, self._machine.boot),
        )
        return restarts.wait_ms(record.spec.restart, ending)

    def _remove(self) -> Steps:
        """Take away everything; the last thing written is the observation REMOVED."""
        machine, container = self._machine, self.record.id
        attempt = max(self.record.attempt, self.seen.attempt if self.seen else 0)
        yield from self._undo(self._run_of(attempt))
        machine.layers.pop(container, None)
        machine.exit_codes.pop(container, None)
        yield _DISK_S
        machine.slots.pop(container, None)
        yield _DISK_S
        seen = self.seen.attempt if self.seen else self.record.attempt
        yield from self._observe(seen, State.REMOVED)

    # -- after a restart of the agent

    def _recover(self) -> Steps:
        """Find out what is true of a container that an earlier life of the agent ran."""
        seen, machine = self.seen, self._machine
        proc = machine.procs.get(self.record.id)
        if seen is None:
            return
        if seen.state >= State.EXITED:
            yield from self._recover_ended(seen)
        elif proc is not None and proc.is_alive and proc.pid == self._pid:
            if proc.has_begun:
                self._proc = proc
                self._became_running()
        elif seen.state is State.CREATED and "unknown ends are started again" in self._agent.bugs:
            return
        else:
            if seen.state is State.CREATED:
                self.seen = seen.model_copy(update={"state": State.RUNNING})
            yield from self._finish()

    def _recover_ended(self, seen: Observation) -> Steps:
        """The store may not know the end yet; what could not be undone is undone now."""
        if "the end is not told again" not in self._agent.bugs:
            self._agent.publish(seen)
        has_leftovers = self.record.id in self._machine.procs or (
            self.record.id in self._machine.spaces
        )
        if has_leftovers and seen.state is State.EXITED:
            try:
                yield from self._undo(seen.run)
            except UnavailableError:
                self._agent.note(f"{self.record.name}: undo failed")
        self._after_boot()
        self._open_restart()

    def _open_restart(self) -> None:
        """A restart by policy that was due may have been on its way."""
        seen = self.seen
        if "due restarts are not opened" in self._agent.bugs or seen is None:
            return
        is_due = 0 < seen.restart_at_ns <= self._agent.loop.now_ns()
        if seen.state is State.EXITED and self.record.attempt == seen.attempt and is_due:
            self._begin_restart()

    def _after_boot(self) -> None:
        """`always` means after a new boot, too."""
        seen, record = self.seen, self.record
        if self._boot in (0, self._machine.boot) or seen is None or seen.restart_at_ns:
            return
        is_wanted = record.goal is Goal.RUNNING and seen.attempt == record.attempt
        is_always = record.spec.restart.name is Restart.ALWAYS
        if is_wanted and is_always and seen.started_at_ns and seen.state is State.EXITED:
            facts = {"restart_at_ns": self._agent.loop.now_ns(), "change": seen.change + 1}
            self.seen = seen.model_copy(update=facts)
            self._agent.publish(self.seen)
