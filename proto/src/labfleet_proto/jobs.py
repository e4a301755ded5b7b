"""Jobs: units of work sent over the bus, and the typed kinds of them.

A job is only a fast path. Whoever serves one must be safe to run it twice, and a level-triggered
loop reaches the same end when every job is lost.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, TypeVar

from labfleet_proto.ids import HostId, JobId, TenantId
from labfleet_proto.message import Message
from labfleet_proto.problem import Problem

Service = Literal["api", "scheduler", "image-store", "runtime-agent", "network"]

A = TypeVar("A", bound=Message)
R = TypeVar("R", bound=Message)


class Job(Message):
    """One unit of work, without what its kind adds."""

    id: JobId
    kind: str
    tenant: TenantId
    subject: str
    """What it acts on: a container id, a network id, an image reference."""
    host: HostId | None
    deadline_ns: int
    """Unix time; who takes the job later than this answers `unavailable` and does nothing."""
    trace: str


class JobOf(Job, Generic[A]):
    """A job as it crosses the bus: written and read in one step, as records are large."""

    args: A


class JobReply(Message, Generic[R]):
    """The outcome of a prompt job: exactly one of `result` and `problem` is set."""

    job: JobId
    result: R | None = None
    problem: Problem | None = None
    steps_s: dict[str, float] = {}
    """Duration of each step in seconds, for the waterfall."""


@dataclass(frozen=True)
class JobKind(Generic[A, R]):
    """A kind of job: who serves it, and the types of its argument and result."""

    name: str
    service: Service
    args: type[A]
    result: type[R]
    timeout_s: float = 10.0

    @cached_property
    def job(self) -> type[JobOf[A]]:
        """The type of its jobs."""
        return JobOf[self.args]  # type: ignore[name-defined]  # a type that is a value

    @cached_property
    def reply(self) -> type[JobReply[R]]:
        """The type of the answers."""
        return JobReply[self.result]  # type: ignore[name-defined]  # a type that is a value
