"""The ledger: what a new life of the agent finds, after a kill and after a power loss."""

from pathlib import Path

import pytest
from tests.unit.proto.records import container_record

from labfleet_proto.containers import Observation, State
from labfleet_proto.ids import HostId
from labfleet_runtime_agent.adapters.ledger import Ledger, LedgerEntry, RunningProcess

RECORD = container_record()
RUNNING = RunningProcess(pid=7, started_ticks=1, monitor_pid=6, monitor_started_ticks=1)


def _seen(state: State, attempt: int = 1) -> Observation:
    return Observation(
        id=RECORD.id, tenant=RECORD.tenant, host=HostId("host1"), generation=2, attempt=attempt,
        state=state,
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state", tmp_path / "run")


def test_what_was_noted_outlives_the_agent(ledger: Ledger) -> None:
    ledger.save(LedgerEntry(record=RECORD, boot_id="a", uid_slot=3))
    ledger.note(LedgerEntry(record=RECORD, seen=_seen(State.CREATED), running=RUNNING, uid_slot=3))
    (found,) = ledger.load()
    assert (found.running, found.uid_slot) == (RUNNING, 3)


def test_after_a_power_loss_only_what_was_saved_is_there(ledger: Ledger, tmp_path: Path) -> None:
    ledger.save(LedgerEntry(record=RECORD, boot_id="a", uid_slot=3))
    ledger.note(LedgerEntry(record=RECORD, seen=_seen(State.CREATED), running=RUNNING))
    for file in (tmp_path / "run" / "ledger").iterdir():
        file.unlink()
    (found,) = ledger.load()
    assert (found.running, found.seen, found.uid_slot) == (None, None, 3)


def test_a_note_that_is_older_than_what_was_saved_is_not_believed(ledger: Ledger) -> None:
    ended = LedgerEntry(record=RECORD, seen=_seen(State.EXITED))
    ledger.save(ended)
    ledger.note(LedgerEntry(record=RECORD, seen=_seen(State.CREATED), running=RUNNING))
    assert ledger.load() == [ended]


def test_a_torn_note_is_passed_over(ledger: Ledger, tmp_path: Path) -> None:
    saved = LedgerEntry(record=RECORD, seen=_seen(State.EXITED))
    ledger.save(saved)
    (tmp_path / "run" / "ledger" / RECORD.id).write_text('{"record": {')
    assert ledger.load() == [saved]


def test_a_forgotten_container_leaves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    ledger.save(LedgerEntry(record=RECORD))
    ledger.note(LedgerEntry(record=RECORD, seen=_seen(State.CREATED)))
    ledger.forget(RECORD.id)
    assert ledger.load() == []
    assert not ledger.path_of(RECORD.id).exists()
    assert list((tmp_path / "run" / "ledger").iterdir()) == []
