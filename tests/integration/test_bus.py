"""Jobs, events and pings over a real nats-server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from tests.farm.nats import NatsServer

from labfleet_chassis import asking, logs
from labfleet_chassis import bus as chassis_bus
from labfleet_chassis.bus import Bus
from labfleet_chassis.clock import SystemClock
from labfleet_proto import subjects
from labfleet_proto.errors import (
    ConflictError,
    HandedOnError,
    InternalError,
    InvalidRequestError,
    LabfleetError,
    NoRoomError,
    NotFoundError,
    StaleError,
    UnavailableError,
)
from labfleet_proto.events import FleetEvent
from labfleet_proto.health import Pong
from labfleet_proto.ids import HostId, JobId, TenantId
from labfleet_proto.jobs import Job, JobKind, JobOf, JobReply, Service
from labfleet_proto.message import Message

pytestmark = pytest.mark.integration

ANN, BOB = TenantId("ann"), TenantId("bob")
H1, H2 = HostId("h1"), HostId("h2")
Open = Callable[[], Any]
Life = Callable[[], AbstractAsyncContextManager[Bus]]


class Question(Message):
    number: int


class Answer(Message):
    number: int


DOUBLE = JobKind("double", "scheduler", Question, Answer, timeout_s=5.0)


class Doubler:
    """Serves DOUBLE and counts what it did."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, _job: Job, question: Question) -> Answer:
        self.done.append(question.number)
        await self.gate.wait()
        return Answer(number=question.number * 2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def life(server: NatsServer) -> Life:
    """A connection of the chassis, from its begin to its orderly end."""

    def one() -> AbstractAsyncContextManager[Bus]:
        log = logs.get("test")
        return chassis_bus.connect(server.url, "", name="test", clock=SystemClock(), log=log)

    return one


@pytest.fixture
async def connect(life: Life) -> AsyncIterator[Open]:
    """Opens connections of the chassis, as many services have them."""
    async with AsyncExitStack() as opened:

        async def one() -> Bus:
            return await opened.enter_async_context(life())

        yield one


@pytest.fixture
async def here(connect: Open) -> Bus:
    return await connect()


@pytest.fixture
async def there(connect: Open) -> Bus:
    return await connect()


@pytest.fixture
async def wire(server: NatsServer) -> AsyncIterator[Client]:
    """A plain client: loses and repeats what it likes."""
    client = await nats.connect(server.url)
    yield client
    await client.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def flush(client: Client) -> None:
    """Return when the server has taken all that was sent.

    The client's own flush lets its ping overtake what is pending; the second ping comes after it.
    """
    await client.flush()
    await client.flush()


async def serve(bus: Bus, handler: Any, host: HostId | None = None) -> None:
    """Serve DOUBLE; return when the server knows it, as plain clients do not ask twice."""
    await bus.serve(DOUBLE, handler, host=host)
    await flush(bus._client)


async def double(bus: Bus, number: int, **options: Any) -> int:
    answer = await bus.call(
        DOUBLE, Question(number=number), tenant=ANN, subject=str(number), **options
    )
    return answer.number


def job(number: int = 1, **fields: Any) -> JobOf[Any]:
    given: dict[str, Any] = {
        "id": JobId("a" * 32),
        "kind": DOUBLE.name,
        "tenant": ANN,
        "subject": "1",
        "host": None,
        "args": {"number": number},
        "deadline_ns": time.time_ns() + 5_000_000_000,
        "trace": "",
    }
    return JobOf[Any](**{**given, **fields})


async def ask(wire: Client, payload: bytes, host: HostId | None = None) -> JobReply[Any]:
    subject = subjects.job(DOUBLE.service, host, DOUBLE.name)
    answer = await wire.request(subject, payload, timeout=5)
    return JobReply[Any].model_validate_json(answer.data)


async def swallow(wire: Client) -> list[bytes]:
    """Take one job out of the queue, as a network that loses it."""
    lost: list[bytes] = []

    async def take(message: nats.aio.msg.Msg) -> None:
        lost.append(message.data)

    subscription = await wire.subscribe(
        subjects.job(DOUBLE.service, None, DOUBLE.name), queue=DOUBLE.service, cb=take
    )
    await subscription.unsubscribe(limit=1)
    await flush(wire)
    return lost


# -- the way there and back


async def test_a_job_comes_back_with_its_result(here: Bus, there: Bus) -> None:
    await serve(there, Doubler())
    assert await double(here, 21) == 42


async def test_a_service_may_call_itself(here: Bus) -> None:
    await serve(here, Doubler())
    assert await double(here, 21) == 42


async def test_a_handler_sees_the_job(here: Bus, there: Bus) -> None:
    seen: list[Job] = []

    async def look(job: Job, question: Question) -> Answer:
        seen.append(job)
        return Answer(number=question.number)

    await serve(there, look)
    await double(here, 7, timeout_s=3)
    left_s = (seen[0].deadline_ns - time.time_ns()) / 1e9
    assert (seen[0].tenant, seen[0].subject, seen[0].host) == (ANN, "7", None)
    assert 0 < left_s < 3


async def test_a_job_for_a_host_goes_to_that_host(here: Bus, there: Bus) -> None:
    first, second = Doubler(), Doubler()
    await serve(here, first, host=H1)
    await serve(there, second, host=H2)
    await double(here, 1, host=H2)
    assert (first.done, second.done) == ([], [1])


async def test_instances_of_a_service_share_the_work(here: Bus, connect: Open) -> None:
    instances = [Doubler(), Doubler()]
    for instance in instances:
        await serve(await connect(), instance)
    answers = await asyncio.gather(*(double(here, number) for number in range(60)))
    assert answers == [2 * number for number in range(60)]
    done = [number for instance in instances for number in instance.done]
    assert sorted(done) == list(range(60))
    assert all(instance.done for instance in instances)


async def test_jobs_are_done_side_by_side(here: Bus, there: Bus) -> None:
    doubler = Doubler()
    doubler.gate.clear()
    await serve(there, doubler)
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(double(here, number)) for number in range(50)]
        await until(lambda: len(doubler.done) == 50)
        doubler.gate.set()
    assert [call.result() for call in calls] == [2 * number for number in range(50)]


# -- errors


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("No such container: web"),
        ConflictError("the name /web is taken"),
        InvalidRequestError("bad port 99999"),
        StaleError("generation 3 is older than 4"),
        UnavailableError("host h1 is lost"),
        NoRoomError("no host has room: h1 lacks memory"),
    ],
    ids=lambda error: error.code,
)
async def test_an_error_crosses_as_itself(here: Bus, there: Bus, error: LabfleetError) -> None:
    async def refuse(_job: Job, _question: Question) -> Answer:
        raise error

    await serve(there, refuse)
    with pytest.raises(type(error)) as caught:
        await double(here, 1)
    assert type(caught.value) is type(error)
    assert caught.value.message == error.message


async def test_an_error_says_when_to_try_again(here: Bus, there: Bus) -> None:
    async def refuse(_job: Job, _question: Question) -> Answer:
        error = NoRoomError("full")
        error.retry_after_s = 1.5
        raise error

    await serve(there, refuse)
    with pytest.raises(NoRoomError) as caught:
        await double(here, 1)
    assert caught.value.retry_after_s == 1.5


async def test_an_unknown_failure_is_an_internal_error(here: Bus, there: Bus) -> None:
    async def stumble(_job: Job, _question: Question) -> Answer:
        raise KeyError("shelf")

    await serve(there, stumble)
    with pytest.raises(InternalError, match=r"double on 1: 'shelf'"):
        await double(here, 1)
    with pytest.raises(InternalError):  # and the service lives on
        await double(here, 2)


@pytest.mark.parametrize("payload", [b"", b"\xff\x00", b"{}", b"[]", b'{"id": 1}'])
async def test_malformed_bytes_are_invalid(there: Bus, wire: Client, payload: bytes) -> None:
    doubler = Doubler()
    await serve(there, doubler)
    reply = await ask(wire, payload)
    assert reply.problem is not None
    assert (reply.problem.code, reply.result) == (InvalidRequestError.code, None)
    assert doubler.done == []


@pytest.mark.parametrize("args", [{}, {"number": "x"}, {"number": 1, "more": 2}])
async def test_arguments_of_another_kind_are_invalid(
    there: Bus, wire: Client, args: dict[str, Any]
) -> None:
    doubler = Doubler()
    await serve(there, doubler)
    reply = await ask(wire, job(args=args).model_dump_json().encode())
    assert reply.problem is not None
    assert reply.problem.code == InvalidRequestError.code
    assert doubler.done == []


async def test_a_field_of_a_newer_version_is_named(there: Bus, wire: Client) -> None:
    await serve(there, Doubler())
    payload = json.dumps(job().model_dump(mode="json") | {"colour": "red"}).encode()
    reply = await ask(wire, payload)
    assert reply.problem is not None
    assert "colour" in reply.problem.message


# -- leaving


async def hand_on(_job: Job, _question: Question) -> Answer:
    raise HandedOnError("this instance leads no more")


async def test_a_job_that_is_handed_on_is_asked_of_the_next(
    here: Bus, life: Life, connect: Open
) -> None:
    async with life() as there:
        await serve(there, hand_on)
        call = asyncio.create_task(double(here, 21))
        await asyncio.wait({call}, timeout=0.3)
        assert not call.done()
    await serve(await connect(), Doubler())
    assert await call == 42


async def test_what_everybody_hands_on_is_served_by_nobody(here: Bus, there: Bus) -> None:
    await serve(there, hand_on)
    with pytest.raises(UnavailableError, match=r"double at scheduler: nobody serves it"):
        await double(here, 1, timeout_s=0.3)


@pytest.mark.parametrize("resent_after_s", [0.01, 5.0])
async def test_a_job_at_hand_is_answered_before_its_service_leaves(
    here: Bus, life: Life, monkeypatch: pytest.MonkeyPatch, resent_after_s: float
) -> None:
    monkeypatch.setattr(asking, "_FIRST_RESEND_S", resent_after_s)
    monkeypatch.setattr(chassis_bus, "_LEAVE_S", 30.0)
    doubler = Doubler()
    doubler.gate.clear()

    async def open_once_nobody_takes_jobs() -> None:
        said = ""
        while "nobody serves it" not in said:  # one that was still taken waits as the first does
            with pytest.raises(UnavailableError) as caught:
                await double(here, 1, timeout_s=0.2)
            said = str(caught.value)
        doubler.gate.set()

    async with life() as there:
        await serve(there, doubler)
        call = asyncio.create_task(double(here, 21, timeout_s=30))
        await until(lambda: doubler.done)
        opening = asyncio.create_task(open_once_nobody_takes_jobs())
    assert await call == 42
    await opening
    assert doubler.done.count(21) == 1


async def test_a_job_without_end_holds_no_service_back(
    here: Bus, life: Life, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis_bus, "_LEAVE_S", 0.2)
    doubler = Doubler()
    doubler.gate.clear()
    async with asyncio.timeout(5), life() as there:
        await serve(there, doubler)
        call = asyncio.create_task(double(here, 21))
        await until(lambda: doubler.done)
    await serve(await connect(), Doubler())
    assert await call == 42  # it was sent again


# -- limits


async def test_a_job_past_its_deadline_is_refused(there: Bus, wire: Client) -> None:
    doubler = Doubler()
    await serve(there, doubler)
    late = job(deadline_ns=time.time_ns() - 1)
    reply = await ask(wire, late.model_dump_json().encode())
    assert reply.problem is not None
    assert reply.problem.code == UnavailableError.code
    assert "after its deadline" in reply.problem.message
    assert doubler.done == []


async def test_nobody_serves_it(here: Bus) -> None:
    with pytest.raises(UnavailableError, match=r"double at scheduler: nobody serves it"):
        await double(here, 1, timeout_s=0.3)


async def test_nobody_serves_it_on_that_host(here: Bus, there: Bus) -> None:
    await serve(there, Doubler(), host=H1)
    with pytest.raises(UnavailableError, match=r"double at scheduler on h2: nobody serves it"):
        await double(here, 1, host=H2, timeout_s=0.3)


async def test_a_service_that_appears_in_time_is_awaited(here: Bus, there: Bus) -> None:
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(double(here, 1))
        await asyncio.sleep(0)  # the call is on its way before anybody serves
        await until(lambda: here._client.stats["out_msgs"] > 0)
        await serve(there, Doubler())
    assert call.result() == 2


async def test_no_answer_in_time_is_unavailable(here: Bus, there: Bus) -> None:
    doubler = Doubler()
    doubler.gate.clear()
    await serve(there, doubler)
    with pytest.raises(UnavailableError, match=r"double at scheduler: no answer in 0\.5 s"):
        await double(here, 1, timeout_s=0.5)
    assert doubler.done == [1]
    doubler.gate.set()


# -- messages that are lost, late and repeated


async def test_a_lost_job_is_sent_again(here: Bus, there: Bus, wire: Client) -> None:
    doubler = Doubler()
    lost = await swallow(wire)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(double(here, 1))
        await until(lambda: lost)
        await serve(there, doubler)
    assert call.result() == 2
    assert (len(lost), doubler.done) == (1, [1])


async def test_a_slow_job_is_done_once(here: Bus, there: Bus) -> None:
    """Its first reply goes to a caller that has stopped listening for that message."""
    doubler, arrived = Doubler(), 0
    doubler.gate.clear()
    await serve(there, doubler)
    answers = there._answers
    known = answers.of

    def counted(*args: Any) -> Any:
        nonlocal arrived
        arrived += 1
        return known(*args)

    answers.of = counted  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(double(here, 1))
        await until(lambda: arrived >= 3)
        doubler.gate.set()
    assert (call.result(), doubler.done) == (2, [1])


async def test_a_repeated_job_gets_the_same_reply(there: Bus, wire: Client) -> None:
    doubler = Doubler()
    await serve(there, doubler)
    payload = job(3).model_dump_json().encode()
    replies = [await ask(wire, payload) for _ in range(3)]
    assert [reply.result for reply in replies] == [{"number": 6}] * 3
    assert doubler.done == [3]


async def test_a_job_repeated_while_it_is_done_waits_for_the_reply(
    there: Bus, wire: Client
) -> None:
    doubler = Doubler()
    doubler.gate.clear()
    await serve(there, doubler)
    payload = job(3).model_dump_json().encode()
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(wire, payload)) for _ in range(3)]
        await until(lambda: there._client.stats["in_msgs"] >= 3)
        doubler.gate.set()
    assert [task.result().result for task in asked] == [{"number": 6}] * 3
    assert doubler.done == [3]


async def test_a_refusal_is_repeated_too(there: Bus, wire: Client) -> None:
    runs = 0

    async def refuse(_job: Job, _question: Question) -> Answer:
        nonlocal runs
        runs += 1
        raise ConflictError(f"run {runs}")

    await serve(there, refuse)
    payload = job().model_dump_json().encode()
    first, second = await ask(wire, payload), await ask(wire, payload)
    assert first == second
    assert runs == 1


async def test_two_jobs_alike_are_both_done(here: Bus, there: Bus) -> None:
    doubler = Doubler()
    await serve(there, doubler)
    await double(here, 1)
    await double(here, 1)
    assert doubler.done == [1, 1]


async def test_a_job_survives_the_death_of_the_bus(
    here: Bus, there: Bus, server: NatsServer
) -> None:
    """The server dies while the job is done: its reply is lost, the work is not repeated."""
    doubler = Doubler()
    doubler.gate.clear()
    await serve(there, doubler)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(double(here, 1, timeout_s=15))
        await until(lambda: doubler.done)
        server.kill()
        doubler.gate.set()
        server.start()
    assert (call.result(), doubler.done) == (2, [1])


# -- events


def event(number: int, tenant: TenantId = ANN, **fields: Any) -> FleetEvent:
    given: dict[str, Any] = {
        "tenant": tenant,
        "type": "container",
        "action": "start",
        "id": f"c{number}",
        "attributes": {},
        "time_ns": time.time_ns(),
    }
    return FleetEvent(**{**given, **fields})


async def kept(bus: Bus, count: int) -> None:
    """Wait until the stream has that many events: publishing does not wait for it."""

    async def number() -> int:
        return (await bus._js.stream_info("EVENTS")).state.messages

    async with asyncio.timeout(10):
        while await number() < count:
            await asyncio.sleep(0.005)


async def collected(bus: Bus, tenant: TenantId | None, since_ns: int, until_ns: int) -> list[str]:
    async with bus.events(tenant, since_ns, until_ns) as events:
        return [each.id async for each in events]


async def test_past_events_are_replayed_in_order(here: Bus, there: Bus) -> None:
    await there.ensure_streams()
    began_ns = time.time_ns()
    for number in range(30):
        await there.emit(event(number))
    await kept(there, 30)
    found = await collected(here, ANN, began_ns, time.time_ns())
    assert found == [f"c{number}" for number in range(30)]


async def test_events_before_the_beginning_are_left_out(here: Bus) -> None:
    await here.ensure_streams()
    await here.emit(event(1))
    await kept(here, 1)
    since_ns = time.time_ns()
    await here.emit(event(2))
    await kept(here, 2)
    assert await collected(here, ANN, since_ns, time.time_ns()) == ["c2"]


async def test_events_after_the_end_are_left_out(here: Bus) -> None:
    await here.ensure_streams()
    began_ns = time.time_ns()
    await here.emit(event(1))
    until_ns = time.time_ns()
    await here.emit(event(2))
    await kept(here, 2)
    assert await collected(here, ANN, began_ns, until_ns) == ["c1"]


async def test_a_replay_of_nothing_ends(here: Bus) -> None:
    await here.ensure_streams()
    now_ns = time.time_ns()
    assert await collected(here, None, now_ns - 10**9, now_ns) == []


async def test_a_tenant_sees_its_own_events(here: Bus) -> None:
    await here.ensure_streams()
    began_ns = time.time_ns()
    await here.emit(event(1, ANN))
    await here.emit(event(2, BOB))
    await kept(here, 2)
    assert await collected(here, BOB, began_ns, time.time_ns()) == ["c2"]
    assert await collected(here, None, began_ns, time.time_ns()) == ["c1", "c2"]


async def test_events_are_followed_as_they_happen(here: Bus, there: Bus) -> None:
    await there.ensure_streams()
    await there.emit(event(0))
    await kept(there, 1)
    async with here.events(ANN) as events:
        for number in (1, 2, 3):
            await there.emit(event(number))
            async with asyncio.timeout(10):
                assert (await anext(events)).id == f"c{number}"


async def test_following_ends_at_its_time(here: Bus) -> None:
    await here.ensure_streams()
    async with here.events(ANN, until_ns=time.time_ns() + 600_000_000) as events:
        await here.emit(event(1))
        assert [each.id async for each in events] == ["c1"]


@pytest.mark.parametrize("name", ["web.local", "", "10.0.0.1", "registry:5000/team/web"])
async def test_an_event_of_any_name_arrives(here: Bus, name: str) -> None:
    await here.ensure_streams()
    began_ns = time.time_ns()
    await here.emit(event(1, id=name, type="image"))
    await kept(here, 1)
    assert await collected(here, ANN, began_ns, time.time_ns()) == [name]


async def test_streams_are_made_once(here: Bus) -> None:
    await here.ensure_streams()
    await here.emit(event(1))
    await kept(here, 1)
    await here.ensure_streams()
    await kept(here, 1)


# -- pings


def pong(service: Service, host: HostId | None, **fields: Any) -> Pong:
    given: dict[str, Any] = {
        "version": "0.1.0",
        "pid": 1,
        "started_at_ns": 1,
        "metrics_port": 9000,
        "is_ready": True,
    }
    return Pong(service=service, host=host, **{**given, **fields})


async def test_every_instance_answers_a_ping(here: Bus, connect: Open) -> None:
    own = [pong("api", None), pong("runtime-agent", H1), pong("runtime-agent", H2)]
    for each in own:
        bus = await connect()
        await bus.answer_pings(lambda each=each: each)
        await flush(bus._client)
    found = await here.ping_all(wait_s=0.5)
    assert sorted(found, key=str) == sorted(own, key=str)


async def test_a_ping_shows_the_state_of_now(here: Bus, there: Bus) -> None:
    state = {"is_ready": False}
    await there.answer_pings(lambda: pong("api", None, **state))
    await flush(there._client)
    assert [each.is_ready for each in await here.ping_all()] == [False]
    state["is_ready"] = True
    assert [each.is_ready for each in await here.ping_all()] == [True]


async def test_a_ping_without_anybody_ends(here: Bus) -> None:
    assert await here.ping_all(wait_s=0.1) == ()


# -- the connection


async def test_a_bus_waits_for_its_server(server: NatsServer, connect: Open) -> None:
    server.kill()
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(connect())
        done, _ = await asyncio.wait({opening}, timeout=0.3)
        assert not done
        server.start()
    opening.result()


async def test_a_service_serves_on_after_the_death_of_the_bus(
    here: Bus, there: Bus, server: NatsServer
) -> None:
    await serve(there, Doubler())
    assert await double(here, 1) == 2
    server.kill()
    server.start()
    assert await double(here, 2, timeout_s=15) == 4
