"""Compaction of the fleet's memory on a real nats-server, also when it was cut off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.farm.memory import mark_too_early
from tests.farm.nats import NatsServer

from labfleet_chassis import bus as chassis_bus
from labfleet_chassis import compaction, logs
from labfleet_chassis.bus import Bus
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.compaction import compact
from labfleet_chassis.store import Bucket
from labfleet_proto.buckets import BucketDef
from labfleet_proto.errors import UnavailableError
from labfleet_proto.message import Message

pytestmark = pytest.mark.integration


class Note(Message):
    number: int


NOTES = BucketDef("notes", Note)
_MANY = 100


@asynccontextmanager
async def _memory(home: Path) -> AsyncIterator[Bus]:
    server = NatsServer(home)
    try:
        async with chassis_bus.connect(
            server.url, "", name="test", clock=SystemClock(), log=logs.get("test")
        ) as bus:
            yield bus
    finally:
        server.stop()


async def _messages(bus: Bus) -> int:
    return int((await bus._js.stream_info("KV_notes")).state.messages)


async def _fill(bus: Bus, deleted: int) -> tuple[Bucket[Note], int]:
    notes = await bus.bucket(NOTES)
    for number in range(deleted):
        await notes.create(f"gone{number}", Note(number=number))
        await notes.delete(f"gone{number}")
    await notes.create("a", Note(number=1))
    return notes, await notes.create("b", Note(number=2))


async def test_deletions_go_and_values_stay(tmp_path: Path) -> None:
    async with _memory(tmp_path) as bus:
        notes, last = await _fill(bus, _MANY)
        assert await compact(bus._js, tmp_path / "aside", _MANY) == ["notes"]
        assert await _messages(bus) == 2
        assert await notes.values() == {"a": Note(number=1), "b": Note(number=2)}
        entry = await notes.get("b")
        assert entry is not None
        assert entry.revision > last, "who knows an old revision must not be believed"
        assert await notes.update("b", Note(number=3), entry.revision) > entry.revision
        await notes.create("gone1", Note(number=4))
        assert (await bus._js.stream_info("KV_notes")).config.max_msgs_per_subject == 1
        assert not (tmp_path / "aside").exists()


async def test_a_bucket_of_values_is_left_alone(tmp_path: Path) -> None:
    async with _memory(tmp_path) as bus:
        notes = await bus.bucket(NOTES)
        revisions = [await notes.create(f"n{number}", Note(number=number)) for number in range(120)]
        assert await compact(bus._js, tmp_path / "aside", _MANY) == []
        entry = await notes.get("n7")
        assert entry is not None
        assert entry.revision == revisions[7]


async def test_nothing_is_lost_when_the_client_library_announces_the_end_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _memory(tmp_path) as bus:
        notes, _ = await _fill(bus, _MANY)
        with monkeypatch.context() as patch:
            mark_too_early(patch)
            assert await compact(bus._js, tmp_path / "aside", _MANY) == ["notes"]
        assert await notes.values() == {"a": Note(number=1), "b": Note(number=2)}


async def test_what_cannot_be_read_whole_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _memory(tmp_path) as bus:
        notes, _ = await _fill(bus, _MANY)
        monkeypatch.setattr(compaction, "_LIMIT_S", 0.5)
        monkeypatch.setattr(compaction, "next_change", _no_change)
        with pytest.raises(UnavailableError, match="0 of its 102 messages"):
            await compact(bus._js, tmp_path / "aside", _MANY)
        assert await notes.values() == {"a": Note(number=1), "b": Note(number=2)}
        assert await _messages(bus) == _MANY + 2


@pytest.mark.parametrize("is_deleted", [False, True], ids=["before-the-deletion", "after-it"])
async def test_a_compaction_that_was_cut_off_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_deleted: bool
) -> None:
    async with _memory(tmp_path) as bus:
        await _fill(bus, _MANY)
        with monkeypatch.context() as patch:
            patch.setattr(compaction, "_restore", _cut_off)
            with pytest.raises(ConnectionError):
                await compact(bus._js, tmp_path / "aside", _MANY)
        if is_deleted:
            await bus._js.delete_stream("KV_notes")
        await compact(bus._js, tmp_path / "aside", _MANY)
        assert await (await bus.bucket(NOTES)).values() == {
            "a": Note(number=1),
            "b": Note(number=2),
        }
        assert await _messages(bus) == 2
        assert not (tmp_path / "aside").exists()


async def _cut_off(*_: object) -> None:
    raise ConnectionError("cut off")


async def _no_change(_: object) -> None:
    await asyncio.sleep(0.01)


async def test_a_server_that_just_starts_is_waited_for(tmp_path: Path) -> None:
    async with _memory(tmp_path) as bus:
        await _fill(bus, _MANY)
        url = bus._client.connected_url.geturl()
        assert await compaction.compact_at(url, "", tmp_path / "aside", _MANY) == ["notes"]
