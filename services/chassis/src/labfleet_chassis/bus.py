"""The bus: typed prompt jobs over NATS requests, events over a stream, pings.

A job is a request with a reply; who serves it runs each in a task of its own, at most
`_MOST_AT_ONCE` at a time, and refuses what arrives past its deadline. How a sender asks: `asking`.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api
from pydantic import ValidationError

from labfleet_chassis import metrics
from labfleet_chassis.answers import Answers
from labfleet_chassis.asking import Asking
from labfleet_chassis.caller import acting_for
from labfleet_chassis.clock import Clock
from labfleet_chassis.logs import Log
from labfleet_chassis.mirror import Mirror
from labfleet_chassis.store import Bucket, open_bucket, translated
from labfleet_chassis.supervise import alone
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto import subjects
from labfleet_proto.buckets import BucketDef
from labfleet_proto.errors import (
    InternalError,
    InvalidRequestError,
    LabfleetError,
    UnavailableError,
)
from labfleet_proto.events import FleetEvent
from labfleet_proto.health import Pong
from labfleet_proto.ids import HostId, JobId, TenantId
from labfleet_proto.jobs import Job, JobKind, JobOf, JobReply
from labfleet_proto.message import Message

A = TypeVar("A", bound=Message)
R = TypeVar("R", bound=Message)
M = TypeVar("M", bound=Message)

Handler = Callable[[Job, A], Awaitable[R]]

_MOST_AT_ONCE = 512
_LEAVE_S = 3.0
"""How long a service that ends still works on the jobs at hand."""
_EVENTS = "EVENTS"
_EVENTS_KEPT_S = 24 * 3600.0
_EVENTS_KEPT = 200_000
_EVENT_WAIT_S = 60.0
_QUIET_S = 0.25
"""A replay is over when nothing came for so long."""


class Bus:
    """A connection to NATS that never gives up reconnecting."""

    def __init__(self, client: Client, clock: Clock, log: Log, tasks: TaskGroup) -> None:
        self._client = client
        self._js = client.jetstream(timeout=10.0)
        self._clock = clock
        self._log = log
        self._tasks = tasks
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)
        self._answers = Answers()
        self._asking = Asking(client, clock)
        self._served: list[Subscription] = []
        self._at_hand: set[asyncio.Task[None]] = set()
        self._mirrors: list[Mirror[Message]] = []

    async def listen(self) -> None:
        """Hear answers from now on."""
        await self._asking.listen()

    async def call(
        self,
        kind: JobKind[A, R],
        args: A,
        *,
        tenant: TenantId,
        subject: str,
        host: HostId | None = None,
        timeout_s: float | None = None,
    ) -> R:
        """Send a job and return its result.

        The same job is sent again while no answer comes, and is done once all the same.

        Raises:
            LabfleetError: what the server of the job raised.
            UnavailableError: nobody serves it, or no answer came in time. The job may have run.
        """
        limit_s = timeout_s or kind.timeout_s
        job = kind.job(
            id=JobId(secrets.token_hex(16)),
            kind=kind.name,
            tenant=tenant,
            subject=subject,
            host=host,
            args=args,
            deadline_ns=self._clock.now_ns() + int(limit_s * 1e9),
            trace=str(structlog.contextvars.get_contextvars().get("trace_id", "")),
        )
        began = time.perf_counter()
        outcome = "unavailable"
        try:
            reply = await self._asking.ask(
                subjects.job(kind.service, host, kind.name), job, kind.reply, limit_s
            )
            outcome = reply.problem.code if reply.problem else "ok"
        finally:
            metrics.CALL_DURATION.labels(kind.name, outcome).observe(time.perf_counter() - began)
        if reply.problem is not None:
            raise reply.problem.to_error()
        if reply.result is None:
            raise InternalError(f"{kind.name} on {subject}: an answer without a result")
        return reply.result

    async def serve(
        self, kind: JobKind[A, R], handler: Handler[A, R], *, host: HostId | None = None
    ) -> None:
        """Serve a kind of job from now on; instances without `host` share the work as a queue group.

        A `LabfleetError` of the handler becomes the job's problem, HandedOnError sends the job to
        the next instance; anything else is logged and answered as `internal`.
        """

        async def on_message(message: Msg) -> None:
            await self._slots.acquire()
            answer = self._answer(kind, handler, message)
            answering = self._tasks.create_task(alone("job", answer, self._log))
            self._at_hand.add(answering)
            answering.add_done_callback(self._at_hand.discard)

        with translated(f"serve {kind.name}"):
            self._served.append(
                await self._client.subscribe(
                    subjects.job(kind.service, host, kind.name), queue=kind.service, cb=on_message
                )
            )

    async def _answer(self, kind: JobKind[A, R], handler: Handler[A, R], message: Msg) -> None:
        began = time.perf_counter()
        outcome = "ok"
        try:
            try:
                job = kind.job.model_validate_json(message.data)
            except ValidationError as exc:
                problem = InvalidRequestError(f"{kind.name}: {exc}").to_problem()
                reply = kind.reply(job=JobId(""), problem=problem)
            else:
                reply = await self._once(kind, handler, job)
            outcome = reply.problem.code if reply.problem else "ok"
            with contextlib.suppress(nats.errors.Error):
                await message.respond(reply.model_dump_json().encode())
        finally:
            self._slots.release()
            metrics.JOB_DURATION.labels(kind.name, outcome).observe(time.perf_counter() - began)

    async def _once(
        self, kind: JobKind[A, R], handler: Handler[A, R], job: JobOf[A]
    ) -> JobReply[R]:
        """Do a job, or wait for the reply of the same job that came before."""
        reply, is_new = self._answers.of(job.id, self._clock.monotonic_s())
        if not is_new:
            return await asyncio.shield(reply)
        structlog.contextvars.bind_contextvars(trace_id=job.trace)
        try:
            reply.set_result(await self._perform(kind, handler, job))
        finally:
            if not reply.done():  # the service ends
                reply.cancel()
        return reply.result()

    async def _perform(
        self, kind: JobKind[A, R], handler: Handler[A, R], job: JobOf[A]
    ) -> JobReply[R]:
        if self._clock.now_ns() > job.deadline_ns:
            late = UnavailableError(f"{kind.name} on {job.subject}: taken up after its deadline")
            return kind.reply(job=job.id, problem=late.to_problem())
        try:
            with acting_for(job.tenant):
                result = await handler(job, job.args)
        except LabfleetError as exc:
            return kind.reply(job=job.id, problem=exc.to_problem())
        except Exception as exc:  # noqa: BLE001 - the top of a job: answered, logged once
            self._log.exception("job.failed", kind=kind.name, subject=job.subject)
            problem = InternalError(f"{kind.name} on {job.subject}: {exc}").to_problem()
            return kind.reply(job=job.id, problem=problem)
        return kind.reply(job=job.id, result=result)

    async def bucket(self, definition: BucketDef[M]) -> Bucket[M]:
        """Open a bucket, making it if need be. Raises UnavailableError."""
        return await open_bucket(self._js, definition)

    async def mirror(self, definition: BucketDef[M]) -> Mirror[M]:
        """Return a mirror of a bucket; the caller runs `mirror.run` under `supervise`."""
        mirror = Mirror(await self.bucket(definition), self._log)
        self._mirrors.append(mirror)  # type: ignore[arg-type]  # only resync is called
        return mirror

    async def emit(self, event: FleetEvent) -> None:
        """Publish a docker event; best effort, without awaiting the stream: the fact stands in the store."""
        subject = subjects.event(event.tenant, event.type, event.id.replace(".", "=") or "-")
        try:
            await self._client.publish(subject, event.model_dump_json().encode())
        except (nats.errors.Error, OSError) as exc:
            self._log.warning("event.lost", subject=subject, error=str(exc))

    @contextlib.asynccontextmanager
    async def events(
        self, tenant: TenantId | None, since_ns: int | None = None, until_ns: int | None = None
    ) -> AsyncIterator[AsyncIterator[FleetEvent]]:
        """Follow events (of all tenants if None), replaying from `since_ns` and ending at `until_ns`.

        Raises UnavailableError.
        """
        subject = subjects.events_of(tenant)
        start = None if since_ns is None else datetime.fromtimestamp(since_ns / 1e9, UTC)
        config = api.ConsumerConfig(
            deliver_policy=(
                api.DeliverPolicy.NEW if start is None else api.DeliverPolicy.BY_START_TIME
            ),
            opt_start_time=start,
        )
        with translated("follow events"):
            subscription = await self._js.subscribe(
                subject, stream=_EVENTS, ordered_consumer=True, config=config
            )

        async def follow() -> AsyncIterator[FleetEvent]:
            while True:
                left_s = _EVENT_WAIT_S
                if until_ns is not None:
                    left_s = min(left_s, (until_ns - self._clock.now_ns()) / 1e9)
                try:
                    message = await subscription.next_msg(timeout=max(left_s, _QUIET_S))
                except nats.errors.TimeoutError:
                    if until_ns is not None and self._clock.now_ns() >= until_ns:
                        return
                    continue
                event = FleetEvent.model_validate_json(message.data)
                if until_ns is not None and event.time_ns > until_ns:
                    return
                yield event

        try:
            yield follow()
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def answer_pings(self, pong: Callable[[], Pong]) -> None:
        """Answer pings from now on."""

        async def on_ping(message: Msg) -> None:
            with contextlib.suppress(nats.errors.Error):
                await message.respond(pong().model_dump_json().encode())

        service = pong().service
        for subject in (subjects.PING_ALL, subjects.ping(service)):
            await self._client.subscribe(subject, cb=on_ping)

    async def ping_all(self, wait_s: float = 0.3) -> tuple[Pong, ...]:
        """Ask every service instance how it is; whoever answers within `wait_s` is in the result."""
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        await self._client.publish(subjects.PING_ALL, b"", reply=inbox)
        found: list[Pong] = []
        try:
            async with asyncio.timeout(wait_s):
                async for message in answers.messages:
                    if message.data:
                        found.append(Pong.model_validate_json(message.data))
        except TimeoutError:
            return tuple(found)
        finally:
            await answers.unsubscribe()
        return tuple(found)

    async def ensure_streams(self) -> None:
        """Make the EVENTS stream if it is not there. Raises UnavailableError.

        Events are a history for people, not state: the stream may flush late (`persist_mode`
        async), so they never slow the durable writes.
        """
        config = api.StreamConfig(
            name=_EVENTS,
            subjects=["event.>"],
            max_age=_EVENTS_KEPT_S,
            max_msgs=_EVENTS_KEPT,
            storage=api.StorageType.FILE,
            persist_mode=api.PersistMode.ASYNC,
        )
        with translated("make stream EVENTS"):
            try:
                await self._js.stream_info(_EVENTS)
            except nats.js.errors.NotFoundError:
                await self._js.add_stream(config)

    async def leave(self) -> None:
        """Take no more jobs, and finish those at hand.

        What takes longer than three seconds is called off without an answer: its sender sends it again.
        """
        for subscription in self._served:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
        if self._at_hand:
            _, late = await asyncio.wait(self._at_hand, timeout=_LEAVE_S)
            for answering in late:
                answering.cancel()

    def on_reconnected(self) -> None:
        """Re-read all mirrors: watches may have died with the server."""
        metrics.BUS_CONNECTED.set(1)
        metrics.BUS_RECONNECTS.inc()
        for mirror in self._mirrors:
            mirror.resync()


@contextlib.asynccontextmanager
async def connect(url: str, token: str, *, name: str, clock: Clock, log: Log) -> AsyncIterator[Bus]:
    """Connect to NATS, trying until it is there; drain at the end."""
    bus: Bus | None = None

    async def on_error(exc: Exception) -> None:
        log.warning("bus.error", error=str(exc) or type(exc).__name__)

    async def on_lost() -> None:
        metrics.BUS_CONNECTED.set(0)
        log.warning("bus.disconnected")

    async def on_back() -> None:
        log.info("bus.reconnected")
        if bus is not None:
            bus.on_reconnected()

    async with TaskGroup() as tasks:
        client = Client()
        while True:
            try:
                await client.connect(
                    url,
                    name=name,
                    token=token or None,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # float works
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    allow_reconnect=True,
                    error_cb=on_error,
                    disconnected_cb=on_lost,
                    reconnected_cb=on_back,
                )
                break
            except (nats.errors.Error, OSError, TimeoutError) as exc:
                log.warning("bus.connecting", url=url, error=str(exc) or type(exc).__name__)
                await client.close()
                client = Client()
                await asyncio.sleep(0.2)
        metrics.BUS_CONNECTED.set(1)
        bus = Bus(client, clock, log, tasks)
        await bus.listen()
        try:
            yield bus
        finally:
            await bus.leave()
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await client.drain()
