"""A faulty bus for jobs: requests and replies are lost, repeated, late and so out of order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.faults import Faults
from tests.simulation.loop import Future, Loop, Process, Steps, within

from labfleet_proto.errors import LabfleetError, UnavailableError


@dataclass(frozen=True)
class Job:
    kind: str
    sent_s: float
    deadline_s: float
    args: Any


Handler = Callable[[Job], Steps]


class Bus:
    """Addresses are `kind` or `kind.host`; several who serve one share the work."""

    def __init__(self, loop: Loop, faults: Faults) -> None:
        self._loop = loop
        self._faults = faults
        self._servers: dict[str, list[tuple[Process, Handler]]] = {}

    def serve(self, process: Process, address: str, handler: Handler) -> None:
        there = self._servers.setdefault(address, [])
        there[:] = [pair for pair in there if pair[0].is_alive]
        there.append((process, handler))

    def call(self, address: str, args: Any, limit_s: float) -> Steps:
        """Send a job and wait for the reply. Raises what the handler raises, UnavailableError."""
        kind = address.partition(".")[0]
        job = Job(kind, self._loop.now, self._loop.now + limit_s, args)
        reply = Future(self._loop)
        copies = 2 if self._faults.hits(self._faults.repeated) else 1
        for _ in range(copies):
            if not self._faults.loses(kind):
                self._loop.at(
                    self._faults.message_delay(), lambda: self._deliver(address, job, reply)
                )
        return (yield from within(self._loop, reply, limit_s, address))

    def _deliver(self, address: str, job: Job, reply: Future) -> None:
        alive = [pair for pair in self._servers.get(address, ()) if pair[0].is_alive]
        if not alive:
            reply.set(error=UnavailableError(f"{address}: nobody serves it"))
            return
        process, handler = self._faults.rng.choice(alive)
        process.spawn(self._answer(handler, job, reply))

    def _answer(self, handler: Handler, job: Job, reply: Future) -> Steps:
        value: Any = None
        error: LabfleetError | None = None
        if self._loop.now > job.deadline_s:
            return
        try:
            value = yield from handler(job)
        except LabfleetError as exc:
            error = exc
        if not self._faults.loses(job.kind):
            self._loop.at(self._faults.message_delay(), lambda: reply.set(value, error))
