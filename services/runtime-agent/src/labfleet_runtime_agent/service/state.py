"""What this host knows of one container, and how it is written down."""

import asyncio
import contextlib

from labfleet_proto.containers import ContainerRecord, Observation, State, check_transition
from labfleet_proto.errors import ConflictError, NoRoomError
from labfleet_runtime_agent.adapters.ledger import LedgerEntry
from labfleet_runtime_agent.service.admission import Admission
from labfleet_runtime_agent.service.tools import Tools


class ContainerState:
    """Record, observation, processes and id range of one container; every change goes through here."""

    def __init__(self, tools: Tools, admission: Admission, entry: LedgerEntry) -> None:
        self.record = entry.record
        self.seen = entry.seen
        self.running = entry.running
        self.is_saved = entry.boot_id != ""
        self.is_of_this_boot = entry.boot_id in ("", tools.boot_id)
        self._uid_slot = entry.uid_slot
        self._tools = tools
        self._admission = admission
        self._saving = asyncio.Lock()

    def is_in(self, *states: State) -> bool:
        """Whether it was observed in one of these states."""
        return self.seen is not None and self.seen.state in states

    def advance(self, attempt: int, state: State, **facts: object) -> Observation:
        """Move to a state of an attempt, and count it for the host's capacity.

        Raises IllegalTransitionError for a step that the table does not have.
        """
        old = self.seen
        if old is None or old.attempt < attempt:
            before, old = old, self._first_of(attempt, old.restarts if old is not None else 0)
            if before is not None:
                old = old.model_copy(update=_kept(before))
        if old.state is not state:
            check_transition(self.record.id, old.state, state)
        change = old.change + 1 if old.state is state else 0
        self.seen = old.model_copy(
            update={
                "state": state,
                "generation": self.record.generation,
                "change": change,
                **facts,
            }
        )
        self._admission.changed(self.record, self.seen)
        return self.seen

    def change(self, *, is_durable: bool = True, **facts: object) -> None:
        """Note and tell new facts of the state that it is in; durably if they outlive the boot."""
        if self.seen is not None:
            self.advance(self.seen.attempt, self.seen.state, **facts)
            if is_durable:
                self.note()
            else:
                self._tools.ledger.note(self._entry())
            self.publish()

    def begin_restart(self) -> None:
        """Open the next run of the attempt, as its restart policy says."""
        old = self.seen
        if old is None:
            return
        self.seen = self._first_of(old.attempt, old.restarts + 1).model_copy(
            update={
                "restart_count": old.restart_count + 1,
                **_kept(old),
                "restart_delay_ms": old.restart_delay_ms,
                "started_at_ns": old.started_at_ns,
                "finished_at_ns": old.finished_at_ns,
                "exit_code": old.exit_code,
            }
        )
        self._admission.changed(self.record, self.seen)

    def _first_of(self, attempt: int, restarts: int) -> Observation:
        """The first observation of a run."""
        return Observation(
            id=self.record.id,
            tenant=self.record.tenant,
            host=self._tools.host,
            generation=self.record.generation,
            attempt=attempt,
            state=State.ASSIGNED,
            restarts=restarts,
        )

    def run_of(self, attempt: int) -> int:
        """Number of the newest run of an attempt, begun or about to begin."""
        if self.seen is None:
            return attempt
        return max(attempt, self.seen.attempt) + self.seen.restarts

    async def settle(self, attempt: int, state: State, **facts: object) -> None:
        """Move to a state, durably here, and then on its way to the fleet's memory."""
        seen = self.advance(attempt, state, **facts)
        await self.save()
        self._tools.publish(seen)

    def publish(self) -> None:
        """Make the observation known; it is written soon, and again until it is durable."""
        if self.seen is not None:
            self._tools.publish(self.seen)

    # -- the ledger

    def _entry(self) -> LedgerEntry:
        return LedgerEntry(
            record=self.record,
            seen=self.seen,
            running=self.running,
            boot_id=self._tools.boot_id,
            uid_slot=self._uid_slot,
        )

    async def save(self) -> None:
        """Write down durably what is known now; one after the other, so that the newest is last."""
        async with self._saving:
            await asyncio.to_thread(self._tools.ledger.save, self._entry())
            self.is_saved = True

    def counted(self) -> None:
        """Count it for the host's capacity with its newest record."""
        self._admission.changed(self.record, self.seen)

    def note(self) -> None:
        """Write down for a new life of the agent in this boot; the durable entry follows beside."""
        self._tools.ledger.note(self._entry())
        self._admission.spawn("ledger", self._save_beside())

    async def _save_beside(self) -> None:
        """A disk that fails must not end the agent: the note holds until the next entry."""
        try:
            await self.save()
        except OSError as exc:
            self._tools.log.warning("ledger.failed", container=self.record.id, error=str(exc))

    async def welcome(self) -> None:
        """Keep a record that was just heard of, with its range of ids if one is free already."""
        with contextlib.suppress(NoRoomError):
            spec = self.record.spec
            if not (spec.shares_with_host("user") or spec.has_ids_of):
                self._uid_slot = self._tools.files.slots.take(self.record.id)
        await self.save()

    # -- ids

    async def uid_base(self) -> int:
        """First of its user ids; durably its own before anything can be written with them.

        Raises NoRoomError when the host has no range left, ConflictError when the container whose range
        it shares has none.
        """
        slots = self._tools.files.slots
        if self.record.spec.shares_with_host("user"):
            return 0
        if self._uid_slot is None:
            other = self.record.spec.has_ids_of
            if other is None:
                self._uid_slot = slots.take(self.record.id)
            else:
                self._uid_slot = slots.share(self.record.id, other)
            if self._uid_slot is None:
                raise ConflictError(f"container {other} is not running")
            await self.save()
        return slots.first_id(self._uid_slot)

    def release_uids(self) -> None:
        """Give the range back: nothing is left that belongs to its ids."""
        self._tools.files.slots.release(self.record.id)
        self._uid_slot = None


def _kept(before: Observation) -> dict[str, object]:
    """What a run inherits of the one before."""
    return {
        "health": before.health,
        "previous_exit_code": before.exit_code,
        "previous_run": before.run,
    }


def fresh(record: ContainerRecord) -> LedgerEntry:
    """The entry of a container that this host hears of for the first time."""
    return LedgerEntry(record=record, seen=None, running=None, boot_id="")
