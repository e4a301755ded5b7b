"""Asking for a job: its message is sent again until an answer comes, so a lost one costs time only.

All messages of a job have one inbox, named by the job's id: the answer to the first counts also when
the second found nobody, as when the service leaves with the job still at hand.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api
from pydantic import ValidationError

from labfleet_chassis import metrics
from labfleet_chassis.clock import Clock
from labfleet_proto.errors import HandedOnError, InternalError, UnavailableError
from labfleet_proto.ids import JobId
from labfleet_proto.jobs import Job, JobReply
from labfleet_proto.message import Message

R = TypeVar("R", bound=Message)

_FIRST_RESEND_S = 0.3
_LONGEST_RESEND_S = 8.0
_ABSENCE_S = 8.0
"""How long a service may be absent: its restart, or the takeover by a standby."""
_ABSENCE_PAUSE_S = 0.1
_NO_RESPONDERS = "503"


@dataclass(frozen=True)
class _Inbox(Generic[R]):
    """Where the answers of one job arrive; None: nobody takes it at the moment."""

    type: type[JobReply[R]]
    arrived: asyncio.Queue[JobReply[R] | None] = field(default_factory=asyncio.Queue)


class Asking:
    """The inboxes of the jobs that one bus has sent."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._prefix = client.new_inbox()
        self._open: dict[str, _Inbox[Any]] = {}

    async def listen(self) -> None:
        """Open the inboxes; before anything is asked. Raises nats.errors.Error."""
        await self._client.subscribe(f"{self._prefix}.*", cb=self._on_answer)

    async def ask(
        self, subject: str, job: Job, kind: type[JobReply[R]], limit_s: float
    ) -> JobReply[R]:
        """Send a job until it is answered. Raises UnavailableError."""
        where = f"{job.kind} at {subject.split('.')[1]}" + (f" on {job.host}" if job.host else "")
        payload = job.model_dump_json().encode()
        began_s = self._clock.monotonic_s()
        absent_s = 0.0
        wait_s = _FIRST_RESEND_S
        with self._inbox(job.id, kind) as (inbox, arrived):
            while True:
                passed_s = self._clock.monotonic_s() - began_s
                try:
                    await self._client.publish(subject, payload, reply=inbox)
                    reply = await _next(arrived, max(min(wait_s, limit_s - passed_s), 0.01))
                except (nats.errors.Error, TimeoutError, OSError) as exc:
                    if self._clock.monotonic_s() - began_s >= limit_s:
                        raise UnavailableError(
                            f"{where}: no answer in {limit_s:g} s ({type(exc).__name__})"
                        ) from exc
                    if not isinstance(exc, TimeoutError):
                        await asyncio.sleep(_ABSENCE_PAUSE_S)
                    wait_s = min(wait_s * 2, _LONGEST_RESEND_S)
                    metrics.RESENDS.labels(job.kind).inc()
                    continue
                if reply is None:
                    absent_s += _ABSENCE_PAUSE_S
                    if absent_s > _ABSENCE_S or passed_s + _ABSENCE_PAUSE_S > limit_s:
                        raise UnavailableError(f"{where}: nobody serves it")
                    with contextlib.suppress(TimeoutError):
                        reply = await _next(arrived, _ABSENCE_PAUSE_S)
                    wait_s = _FIRST_RESEND_S
                if reply is not None:
                    return reply

    @contextlib.contextmanager
    def _inbox(
        self, job: JobId, kind: type[JobReply[R]]
    ) -> Iterator[tuple[str, asyncio.Queue[JobReply[R] | None]]]:
        inbox = self._open[job] = _Inbox(kind)
        try:
            yield f"{self._prefix}.{job}", inbox.arrived
        finally:
            del self._open[job]

    async def _on_answer(self, message: Msg) -> None:
        job = message.subject.rpartition(".")[2]
        inbox = self._open.get(job)
        if inbox is None:  # answered before
            return
        if message.headers and message.headers.get(api.Header.STATUS) == _NO_RESPONDERS:
            inbox.arrived.put_nowait(None)
            return
        try:
            reply = inbox.type.model_validate_json(message.data)
        except ValidationError as exc:  # of another release: the asker must hear of it
            problem = InternalError(f"an answer that cannot be read: {exc}").to_problem()
            reply = inbox.type(job=JobId(job), problem=problem)
        is_handed_on = reply.problem is not None and reply.problem.code == HandedOnError.code
        inbox.arrived.put_nowait(None if is_handed_on else reply)


async def _next(arrived: asyncio.Queue[JobReply[R] | None], wait_s: float) -> JobReply[R] | None:
    """Raises TimeoutError."""
    async with asyncio.timeout(wait_s):
        return await arrived.get()
