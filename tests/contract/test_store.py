"""The store of the fleet: one suite over the simulation's fake and the chassis on a real nats-server.

The simulation is worth what its store is worth: whatever a core may rely on is written down here, and
holds for both. The fake's watches lag and deliver twice throughout.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.farm.memory import mark_too_early
from tests.farm.nats import NatsServer
from tests.simulation import store as fake
from tests.simulation.faults import Faults
from tests.simulation.loop import Loop, Process

from labfleet_chassis import bus as chassis_bus
from labfleet_chassis import logs, mirror
from labfleet_chassis.bus import Bus
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.mirror import Mirror
from labfleet_chassis.store import Bucket
from labfleet_chassis.supervise import supervise
from labfleet_proto.buckets import BucketDef
from labfleet_proto.errors import ConflictError, StaleError, UnavailableError
from labfleet_proto.message import Message

_LIVES = 400
_LARGE = 9**3500
"""Some kilobytes: the server's files become several blocks."""
_LIMIT_S = 20.0
_BRIEF_TTL_S = 1


class Note(Message):
    number: int


NOTES = BucketDef("notes", Note)
BRIEF = BucketDef("brief", Note, ttl_s=_BRIEF_TTL_S)


class View(Protocol):
    """A mirror; `heard` has what a listener was told: the number, or None for gone."""

    heard: list[tuple[str, int | None]]

    @property
    def numbers(self) -> dict[str, int]: ...
    async def wait_for(self, revision: int, limit_s: float = 5.0) -> None: ...


class Notes(Protocol):
    """A bucket of numbers. Each kind of store is behind one."""

    async def create(self, key: str, number: int) -> int: ...
    async def update(self, key: str, number: int, revision: int) -> int: ...
    async def put(self, key: str, number: int) -> int: ...
    async def delete(self, key: str, revision: int | None = None) -> None: ...
    async def get(self, key: str) -> tuple[int, int] | None: ...
    async def numbers(self) -> dict[str, int]: ...
    async def view(self) -> View: ...
    async def lose_watches(self) -> None:
        """The watches die without a word."""

    async def crash(self) -> None:
        """Power loss of the store, and its return."""

    def absence(self) -> AbstractAsyncContextManager[None]:
        """The store does not answer."""

    async def until(self, condition: Callable[[], bool]) -> None: ...


# -- the simulation's


class FakeView:
    def __init__(self, notes: "FakeNotes") -> None:
        self.heard: list[tuple[str, int | None]] = []
        self.mirror = fake.Mirror(notes.store, notes.process, notes.bucket.name)
        self.mirror.listen(lambda key, entry: self.heard.append((key, _number(entry))))
        self._notes = notes

    @property
    def numbers(self) -> dict[str, int]:
        return {key: note.number for key, note in self.mirror.as_dict().items()}

    async def wait_for(self, revision: int, limit_s: float = 5.0) -> None:
        self._notes.run(self.mirror.wait_for(revision, limit_s))


class FakeNotes:
    """Requests take virtual time."""

    def __init__(self, definition: BucketDef[Note]) -> None:
        rng = random.Random(1)
        self.loop = Loop(rng)
        self.faults = Faults(rng, store_slow=0.2, watch_lags=0.2, watch_repeats=0.3)
        self.process = Process(self.loop, "reader")
        self.store = fake.Store(self.loop, self.faults)
        self.bucket = fake.Bucket(self.loop, definition.name, definition.ttl_s)
        self.bucket.lag, self.bucket.repeats = self.faults.watch_lag, self.faults.watch_repeats_now
        self.store.buckets[definition.name] = self.bucket
        self._views: list[FakeView] = []

    def run(self, steps: Generator[Any, Any, Any]) -> Any:
        done = self.process.spawn(steps)
        while not done.is_done:
            assert self.loop._heap, "waits for nothing"
            self.loop.run(self.loop._heap[0][0])
        if done.error is not None:
            raise done.error
        return done.value

    async def create(self, key: str, number: int) -> int:
        return self.run(self.store.call(self.bucket.create, key, Note(number=number)))

    async def update(self, key: str, number: int, revision: int) -> int:
        return self.run(self.store.call(self.bucket.update, key, Note(number=number), revision))

    async def put(self, key: str, number: int) -> int:
        return self.run(self.store.call(self.bucket.put, key, Note(number=number)))

    async def delete(self, key: str, revision: int | None = None) -> None:
        self.run(self.store.call(self.bucket.delete, key, revision))

    async def get(self, key: str) -> tuple[int, int] | None:
        entry = self.run(self.store.call(self.bucket.get, key))
        return None if entry is None else (entry.value.number, entry.revision)

    async def numbers(self) -> dict[str, int]:
        return {key: entry.value.number for key, entry in self.bucket.entries.items()}

    async def view(self) -> FakeView:
        self._views.append(view := FakeView(self))
        await self.until(lambda: view.mirror.ready.is_done)
        return view

    async def lose_watches(self) -> None:
        for view in self._views:
            view.mirror.lose()

    async def crash(self) -> None:
        await self.lose_watches()

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        self.faults.store_lost = 1.0
        yield
        self.faults.store_lost = 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        end_s = self.loop.now + _LIMIT_S
        while not condition():
            assert self.loop.now < end_s, "the condition does not come about"
            self.loop.run(self.loop.now + 0.05)


# -- the chassis's


class RealView:
    def __init__(self, mirror: Mirror[Note]) -> None:
        self.heard: list[tuple[str, int | None]] = []
        self._mirror = mirror
        self._mirror.listen(lambda key, entry: self.heard.append((key, _number(entry))))

    @property
    def numbers(self) -> dict[str, int]:
        return {key: entry.value.number for key, entry in self._mirror.entries.items()}

    async def wait_for(self, revision: int, limit_s: float = 5.0) -> None:
        await self._mirror.wait_for(revision, limit_s)


class RealNotes:
    """A bucket on a nats-server, and mirrors of it over the same connection."""

    def __init__(
        self, server: NatsServer, bus: Bus, bucket: Bucket[Note], tasks: asyncio.TaskGroup
    ) -> None:
        self.bucket = bucket
        self._server = server
        self._bus = bus
        self._tasks = tasks
        self.followers: list[asyncio.Task[None]] = []

    async def create(self, key: str, number: int) -> int:
        return await self.bucket.create(key, Note(number=number))

    async def update(self, key: str, number: int, revision: int) -> int:
        return await self.bucket.update(key, Note(number=number), revision)

    async def put(self, key: str, number: int) -> int:
        return await self.bucket.put(key, Note(number=number))

    async def delete(self, key: str, revision: int | None = None) -> None:
        await self.bucket.delete(key, revision)

    async def get(self, key: str) -> tuple[int, int] | None:
        entry = await self.bucket.get(key)
        return None if entry is None else (entry.value.number, entry.revision)

    async def numbers(self) -> dict[str, int]:
        return {key: note.number for key, note in (await self.bucket.values()).items()}

    async def view(self) -> RealView:
        mirror = await self._bus.mirror(self.bucket.definition)
        view = RealView(mirror)
        follow = supervise("notes", mirror.run, logs.get("test"))
        self.followers.append(self._tasks.create_task(follow))
        async with asyncio.timeout(_LIMIT_S):
            await mirror.ready.wait()
        return view

    async def lose_watches(self) -> None:
        stream = f"KV_{self.bucket.definition.name}"
        for consumer in await self._bus._js.consumers_info(stream):
            assert await self._bus._js.delete_consumer(stream, consumer.name)

    async def crash(self) -> None:
        async with self.absence():
            pass

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        js = self._bus._js
        usual_s, js._timeout = js._timeout, 0.2
        self._server.kill()
        yield
        self._server.start()
        async with asyncio.timeout(_LIMIT_S):
            while not await self._answers():
                await asyncio.sleep(0.01)
        js._timeout = usual_s

    async def messages(self) -> int:
        """How many values and markers the server keeps."""
        info = await self._bus._js.stream_info(f"KV_{self.bucket.definition.name}")
        return int(info.state.messages)

    async def _answers(self) -> bool:
        try:
            await self.bucket.last_revision()
        except UnavailableError:
            return False
        return True

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_LIMIT_S):
            while not condition():
                await asyncio.sleep(0.005)


def _number(entry: Any) -> int | None:
    return None if entry is None else entry.value.number


@contextmanager
def _server(home: Path) -> Generator[NatsServer, None, None]:
    server = NatsServer(home)
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def _real(home: Path, definition: BucketDef[Note]) -> AsyncIterator[RealNotes]:
    with _server(home) as server:
        async with (
            chassis_bus.connect(
                server.url, "", name="test", clock=SystemClock(), log=logs.get("test")
            ) as bus,
            asyncio.TaskGroup() as tasks,
        ):
            notes = RealNotes(server, bus, await bus.bucket(definition), tasks)
            try:
                yield notes
            finally:
                for follower in notes.followers:
                    follower.cancel()


@pytest.fixture(params=["fake", pytest.param("nats", marks=pytest.mark.integration)])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(mirror, "_TICKS_TO_DOUBT", 2)  # a second instead of seven
    return str(request.param)


@asynccontextmanager
async def _opened(kind: str, home: Path, definition: BucketDef[Note]) -> AsyncIterator[Notes]:
    if kind == "fake":
        yield FakeNotes(definition)
    else:
        async with _real(home, definition) as real:
            yield real


@pytest.fixture
async def notes(kind: str, tmp_path: Path) -> AsyncIterator[Notes]:
    async with _opened(kind, tmp_path, NOTES) as opened:
        yield opened


@pytest.fixture
async def brief(kind: str, tmp_path: Path) -> AsyncIterator[Notes]:
    """A bucket whose values expire after a second."""
    async with _opened(kind, tmp_path, BRIEF) as opened:
        yield opened


# -- one key


async def test_what_was_written_is_read_at_its_revision(notes: Notes) -> None:
    revision = await notes.create("a.b", 1)
    assert await notes.get("a.b") == (1, revision)


async def test_an_unknown_key_has_no_value(notes: Notes) -> None:
    assert await notes.get("a") is None


async def test_a_key_is_created_once(notes: Notes) -> None:
    await notes.create("a", 1)
    with pytest.raises(ConflictError, match=r"create a in notes: it exists"):
        await notes.create("a", 2)
    assert (await notes.get("a") or ())[0] == 1


async def test_of_many_creators_one_wins(notes: Notes) -> None:
    outcomes = await asyncio.gather(
        *(notes.create("a", number) for number in range(20)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
    assert len(refused) == 19
    winner = next(number for number in range(20) if isinstance(outcomes[number], int))
    assert (await notes.get("a") or ())[0] == winner


async def test_a_value_changes_at_the_revision_that_was_read(notes: Notes) -> None:
    revision = await notes.create("a", 1)
    newer = await notes.update("a", 2, revision)
    assert await notes.get("a") == (2, newer)


async def test_an_old_revision_changes_nothing(notes: Notes) -> None:
    first = await notes.create("a", 1)
    second = await notes.update("a", 2, first)
    with pytest.raises(StaleError, match=r"update a in notes: changed meanwhile"):
        await notes.update("a", 3, first)
    assert await notes.get("a") == (2, second)


async def test_of_many_changes_at_one_revision_one_wins(notes: Notes) -> None:
    revision = await notes.create("a", 0)
    outcomes = await asyncio.gather(
        *(notes.update("a", number, revision) for number in range(1, 11)), return_exceptions=True
    )
    assert sum(isinstance(outcome, StaleError) for outcome in outcomes) == 9


async def test_an_absent_key_is_not_changed(notes: Notes) -> None:
    with pytest.raises(StaleError):
        await notes.update("a", 1, 5)
    assert await notes.get("a") is None


async def test_a_deleted_key_is_not_changed(notes: Notes) -> None:
    revision = await notes.create("a", 1)
    await notes.delete("a")
    with pytest.raises(StaleError):
        await notes.update("a", 2, revision)
    assert await notes.get("a") is None


async def test_a_key_with_one_writer_is_written_without_comparing(notes: Notes) -> None:
    await notes.put("a", 1)
    revision = await notes.put("a", 2)
    assert await notes.get("a") == (2, revision)


@pytest.mark.integration
async def test_what_was_deleted_stays_deleted_however_often_the_server_dies(tmp_path: Path) -> None:
    async with _real(tmp_path, NOTES) as notes:
        lives = asyncio.Semaphore(10)

        async def life(number: int) -> None:
            async with lives:
                revision = await notes.create(f"key{number}", _LARGE)
                for _ in range(5):
                    revision = await notes.update(f"key{number}", _LARGE, revision)
                if number % 20:
                    await notes.delete(f"key{number}", revision)

        async with asyncio.TaskGroup() as tasks:
            for number in range(_LIVES):
                tasks.create_task(life(number))
        wanted = {f"key{number}": _LARGE for number in range(0, _LIVES, 20)}
        for number in range(4):
            kept = await notes.messages()
            await notes.crash()
            assert await notes.messages() == kept
            assert await notes.numbers() == wanted
            await notes.create(f"new{number}", number)
            wanted[f"new{number}"] = number


@pytest.mark.integration
async def test_a_bucket_of_an_older_release_keeps_its_newest_values_only(tmp_path: Path) -> None:
    async with _real(tmp_path, NOTES) as notes:
        js = notes._bus._js
        config = (await js.stream_info("KV_notes")).config
        config.max_msgs_per_subject = 8
        await js.update_stream(config)
        await notes.put("a", 1)
        await notes.put("a", 2)
        assert await notes.messages() == 2
        await notes._bus.bucket(NOTES)
        assert await notes.messages() == 1
        assert await notes.numbers() == {"a": 2}


@pytest.mark.integration
async def test_all_is_read_also_when_the_client_library_announces_the_end_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _real(tmp_path, NOTES) as notes:
        bucket = await notes._bus.bucket(NOTES)
        assert await bucket.entries("of.*") == []
        for number in range(3):
            await notes.put(f"of.{number}", number)
        await notes.put("a", 3)
        await notes.delete("of.1")
        mark_too_early(monkeypatch)
        assert await notes.numbers() == {"of.0": 0, "of.2": 2, "a": 3}
        assert [entry.value.number for entry in await bucket.entries("of.*")] == [0, 2]
        assert await bucket.entries("none.*") == []


# -- revisions


async def test_revisions_grow_over_all_keys(notes: Notes) -> None:
    first = await notes.create("a", 1)
    seen = [first, await notes.put("b", 1), await notes.update("a", 2, first)]
    await notes.delete("a")
    seen += [await notes.create("a", 3), await notes.put("b", 2)]
    assert seen == sorted(set(seen))


async def test_a_refused_write_costs_no_others_revision(notes: Notes) -> None:
    revision = await notes.create("a", 1)
    with pytest.raises(ConflictError):
        await notes.create("a", 2)
    assert await notes.update("a", 3, revision) > revision


# -- deletion


async def test_a_deleted_key_has_no_value(notes: Notes) -> None:
    await notes.create("a", 1)
    await notes.delete("a")
    assert await notes.get("a") is None


async def test_deleting_an_absent_key_is_success(notes: Notes) -> None:
    await notes.delete("a")
    await notes.create("b", 1)
    await notes.delete("b")
    await notes.delete("b")
    assert await notes.numbers() == {}


async def test_a_key_is_deleted_at_the_revision_that_was_read(notes: Notes) -> None:
    revision = await notes.create("a", 1)
    await notes.delete("a", revision)
    assert await notes.get("a") is None


async def test_an_old_revision_deletes_nothing(notes: Notes) -> None:
    first = await notes.create("a", 1)
    await notes.update("a", 2, first)
    with pytest.raises(StaleError, match=r"delete a in notes: changed meanwhile"):
        await notes.delete("a", first)
    assert (await notes.get("a") or ())[0] == 2


async def test_an_absent_key_is_at_no_revision(notes: Notes) -> None:
    with pytest.raises(StaleError):
        await notes.delete("a", 7)


async def test_a_deleted_key_is_created_anew(notes: Notes) -> None:
    await notes.create("a", 1)
    await notes.delete("a")
    revision = await notes.create("a", 2)
    assert await notes.get("a") == (2, revision)


async def test_a_key_created_anew_outlives_a_deletion_that_meant_the_old_one(notes: Notes) -> None:
    old = await notes.create("a", 1)
    await notes.delete("a")
    await notes.create("a", 2)
    with pytest.raises(StaleError):
        await notes.delete("a", old)
    assert (await notes.get("a") or ())[0] == 2


# -- all keys


async def test_all_values_are_what_is_there(notes: Notes) -> None:
    for number in range(5):
        await notes.create(f"k.{number}", number)
    await notes.delete("k.3")
    await notes.put("k.4", 40)
    assert await notes.numbers() == {"k.0": 0, "k.1": 1, "k.2": 2, "k.4": 40}


async def test_an_empty_bucket_has_no_values(notes: Notes) -> None:
    assert await notes.numbers() == {}


async def test_a_bucket_of_deleted_keys_has_no_values(notes: Notes) -> None:
    await notes.create("a", 1)
    await notes.delete("a")
    assert await notes.numbers() == {}


async def test_more_values_than_a_watch_buffers(notes: Notes) -> None:
    await asyncio.gather(*(notes.put(f"k{number}", number) for number in range(700)))
    assert await notes.numbers() == {f"k{number}": number for number in range(700)}


# -- mirrors


async def test_a_mirror_begins_with_what_is_there(notes: Notes) -> None:
    await notes.create("a", 1)
    await notes.create("b", 2)
    await notes.delete("b")
    assert (await notes.view()).numbers == {"a": 1}


async def test_a_mirror_of_an_empty_bucket_is_ready(notes: Notes) -> None:
    assert (await notes.view()).numbers == {}


async def test_a_mirror_shows_ones_own_write(notes: Notes) -> None:
    view = await notes.view()
    for number in range(20):
        await view.wait_for(await notes.put("a", number))
        assert view.numbers == {"a": number}


async def test_a_mirror_begun_after_a_write_shows_it(notes: Notes) -> None:
    revision = await notes.put("a", 1)
    await notes.delete("b")
    view = await notes.view()
    await view.wait_for(revision)
    assert view.numbers == {"a": 1}


async def test_a_mirror_does_not_show_what_nobody_wrote(notes: Notes) -> None:
    view = await notes.view()
    revision = await notes.put("a", 1)
    with pytest.raises(UnavailableError):
        await view.wait_for(revision + 1, limit_s=0.3)


async def test_a_mirror_forgets_what_was_deleted(notes: Notes) -> None:
    view = await notes.view()
    await view.wait_for(await notes.create("a", 1))
    await notes.delete("a")
    await notes.until(lambda: view.numbers == {})
    assert view.heard[-1] == ("a", None)


async def test_a_mirror_shows_a_key_created_anew(notes: Notes) -> None:
    view = await notes.view()
    await notes.create("a", 1)
    await notes.delete("a")
    await view.wait_for(await notes.create("a", 2))
    assert view.numbers == {"a": 2}


async def test_listeners_hear_of_each_key(notes: Notes) -> None:
    view = await notes.view()
    for number in range(10):
        revision = await notes.put(f"k{number}", number)
    await view.wait_for(revision)
    assert set(view.heard) >= {(f"k{number}", number) for number in range(10)}


@pytest.mark.parametrize("loss", ["watches", "store"])
async def test_a_mirror_finds_its_way_back(notes: Notes, loss: str) -> None:
    await notes.put("changed", 1)
    await notes.put("deleted", 1)
    view = await notes.view()
    await (notes.lose_watches() if loss == "watches" else notes.crash())
    await notes.put("changed", 2)
    await notes.put("created", 1)
    await notes.delete("deleted")
    await notes.until(lambda: view.numbers == {"changed": 2, "created": 1})
    assert ("deleted", None) in view.heard


@pytest.mark.parametrize("loss", ["watches", "store"])
async def test_one_waits_for_ones_write_also_over_a_loss(notes: Notes, loss: str) -> None:
    view = await notes.view()
    await (notes.lose_watches() if loss == "watches" else notes.crash())
    revision = await notes.put("a", 1)
    await notes.until(lambda: view.numbers == {"a": 1})
    await view.wait_for(revision)


@pytest.mark.parametrize("seed", range(4))
async def test_a_mirror_never_goes_back_and_ends_at_the_truth(notes: Notes, seed: int) -> None:
    """Numbers only grow here, so what a listener hears of a key grows, too."""
    rng = random.Random(seed)
    view = await notes.view()
    for number in range(120):
        key = f"k{rng.randrange(6)}"
        await (notes.delete(key) if rng.random() < 0.3 else notes.put(key, number))
        if number in (40, 80):
            await (notes.lose_watches() if rng.random() < 0.5 else notes.crash())
    truth = await notes.numbers()
    await notes.until(lambda: view.numbers == truth)
    for key in {key for key, _ in view.heard}:
        told = [number for each, number in view.heard if each == key and number is not None]
        assert told == sorted(told), (seed, key, told)


# -- faults of the store


async def test_an_acknowledged_write_outlives_the_store(notes: Notes) -> None:
    for number in range(30):
        revision = await notes.put(f"k{number}", number)
    await notes.delete("k0")
    await notes.crash()
    assert await notes.numbers() == {f"k{number}": number for number in range(1, 30)}
    assert await notes.get("k29") == (29, revision)
    assert await notes.put("k29", 30) > revision


async def test_a_deletion_outlives_the_store(notes: Notes) -> None:
    await notes.create("a", 1)
    await notes.delete("a")
    await notes.crash()
    assert await notes.get("a") is None
    await notes.create("a", 2)


async def test_revisions_are_compared_also_across_a_crash(notes: Notes) -> None:
    first = await notes.create("a", 1)
    second = await notes.update("a", 2, first)
    await notes.crash()
    with pytest.raises(StaleError):
        await notes.update("a", 3, first)
    await notes.update("a", 3, second)


async def test_a_store_that_does_not_answer_is_unavailable(notes: Notes) -> None:
    revision = await notes.create("a", 1)
    view = await notes.view()
    async with notes.absence():
        for attempt in (
            notes.get("a"),
            notes.create("b", 1),
            notes.update("a", 2, revision),
            notes.put("c", 1),
            notes.delete("a"),
        ):
            with pytest.raises(UnavailableError):
                await attempt
        assert view.numbers["a"] in (1, 2)  # a mirror goes on showing what it knew
    truth = await notes.numbers()
    await notes.until(lambda: view.numbers == truth)


# -- values that expire


async def test_an_expired_value_is_gone_and_its_key_free(brief: Notes) -> None:
    await brief.create("a", 1)
    with pytest.raises(ConflictError):
        await brief.create("a", 2)
    await _expired(brief, "a")
    assert await brief.numbers() == {}
    await brief.create("a", 3)


async def test_an_expired_value_is_no_base_for_a_change(brief: Notes) -> None:
    revision = await brief.create("a", 1)
    await _expired(brief, "a")
    with pytest.raises(StaleError):
        await brief.update("a", 2, revision)


async def test_each_write_begins_the_time_anew(brief: Notes) -> None:
    for number in range(6):
        await brief.put("a", number)
        await _pass(brief, _BRIEF_TTL_S / 3)
    assert (await brief.get("a") or ())[0] == 5


async def test_a_mirror_is_not_told_of_what_expired(brief: Notes) -> None:
    """So whoever reads leases asks for their age."""
    view = await brief.view()
    await view.wait_for(await brief.put("a", 1))
    await _expired(brief, "a")
    assert view.numbers == {"a": 1}


async def _expired(notes: Notes, key: str) -> None:
    end_s = time.monotonic() + _LIMIT_S
    while await notes.get(key) is not None:
        assert time.monotonic() < end_s, f"{key} does not expire"
        await _pass(notes, 0.02)


async def _pass(notes: Notes, duration_s: float) -> None:
    """Let the time of the store pass: virtual for the fake."""
    if isinstance(notes, FakeNotes):
        notes.loop.run(notes.loop.now + duration_s)
    else:
        await asyncio.sleep(duration_s)
