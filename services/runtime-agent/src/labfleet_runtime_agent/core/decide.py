"""What to do next for one container: one pure function of desired and observed.

The worker repeats `action = decide(...)`, performs it and observes again. Every action is
idempotent, so doing it twice, or after a crash in its middle, looks like doing it once.
"""

from dataclasses import dataclass

from labfleet_proto.containers import ContainerRecord, Goal, Observation, State, awaits_restart


@dataclass(frozen=True)
class Nothing:
    """The goal is reached."""


@dataclass(frozen=True)
class Start:
    """Run attempt `attempt` from its beginning; leftovers of a crashed start are taken away first."""

    attempt: int


@dataclass(frozen=True)
class Stop:
    """Ask the container to end, then kill it."""

    signal: str
    grace_s: int


@dataclass(frozen=True)
class Remove:
    """Take away everything; the last thing written is the observation REMOVED."""

    with_volumes: bool


@dataclass(frozen=True)
class Await:
    """The restart policy begins the next run at this time (Unix, ns)."""

    until_ns: int


@dataclass(frozen=True)
class Freeze:
    """Pause every process."""


@dataclass(frozen=True)
class Thaw:
    """Let the processes go on."""


@dataclass(frozen=True)
class Settle:
    """The attempt is over without having run: observe EXITED with this reason and exit code."""

    reason: str
    exit_code: int


@dataclass(frozen=True)
class Rewire:
    """Make the interfaces of the running attempt equal to the record's networks."""


Action = Nothing | Start | Stop | Remove | Settle | Await | Freeze | Thaw | Rewire


def is_news(record: ContainerRecord, known: ContainerRecord | None) -> bool:
    """Whether `record` is newer than what this host acted on: the greater generation is right.

    An assignment of an older epoch is never news: it was made for a past life of this host.
    """
    if known is None:
        return True
    if record.assignment.epoch < known.assignment.epoch:
        return False
    return record.generation > known.generation


def decide(  # noqa: PLR0911 - a table of cases reads best as one
    record: ContainerRecord, seen: Observation | None
) -> Action:
    """Return the next action.

    Args:
        record: Newest desired state that this host has.
        seen: What is true now; None if nothing of the container was ever seen here.
    """
    if seen is not None and seen.state is State.REMOVED:
        return Nothing()
    if record.goal is Goal.REMOVED:
        return _remove(record, seen)
    if record.goal is Goal.CREATED or record.attempt == 0:
        return Nothing()
    if seen is None or seen.attempt < record.attempt:
        return _next_attempt(record, seen)
    if seen.state in (State.RUNNING, State.STOPPING):
        return _stop(record) if record.goal is Goal.STOPPED else _running(record, seen)
    if seen.state is State.EXITED:
        if record.spec.auto_remove:
            return Remove(with_volumes=True)
        return Await(seen.restart_at_ns) if awaits_restart(record, seen) else Nothing()
    # A start that a crash of the agent cut short: nothing has run yet in this attempt.
    if record.goal is Goal.STOPPED:
        return Settle("stopped before it ran", 137)
    return Start(record.attempt)


def is_wired(record: ContainerRecord, seen: Observation) -> bool:
    """Whether a running container is in the networks of its record, and as these say."""
    wishes = record.spec.networks
    return len(wishes) == len(seen.endpoints) and all(
        wish.network_id == there.network
        and wish.aliases == there.aliases
        and wish.address in (None, there.address)
        and (wish.address6 in (None, there.address6) or not there.address6)
        and wish.mac in (None, there.mac)
        for wish, there in zip(wishes, seen.endpoints, strict=True)
    )


def _running(record: ContainerRecord, seen: Observation) -> Action:
    """What a container that is to run on needs: paused or not, then its networks."""
    if seen.state is State.STOPPING:
        return Nothing()
    is_wanted = record.paused_run == seen.run
    if is_wanted is not seen.is_paused:
        return Freeze() if is_wanted else Thaw()
    return Nothing() if is_wired(record, seen) else Rewire()


def _next_attempt(record: ContainerRecord, seen: Observation | None) -> Action:
    if seen is not None and seen.state in (State.RUNNING, State.STOPPING):
        return _stop(record)
    if record.goal is Goal.RUNNING:
        return Start(record.attempt)
    return Settle("stopped before it ran", 137)


def _remove(record: ContainerRecord, seen: Observation | None) -> Action:
    if seen is not None and seen.state in (State.RUNNING, State.STOPPING):
        return Stop("SIGKILL", 0)
    return Remove(with_volumes=record.remove_volumes or record.spec.auto_remove)


def _stop(record: ContainerRecord) -> Stop:
    grace = record.stop_timeout_s
    return Stop(
        record.stop_signal or record.spec.stop_signal,
        record.spec.stop_timeout_s if grace is None else grace,
    )
