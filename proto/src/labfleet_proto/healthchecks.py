"""Health checks: what to run in a container, and what came of it."""

from enum import StrEnum

from labfleet_proto.message import Message


class HealthStatus(StrEnum):
    """Docker's words; a container without a check has none."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class HealthCheck(Message):
    """A command that is run in the container again and again. Of the times 0 means docker's default."""

    test: tuple[str, ...]
    """`CMD` and a command line, `CMD-SHELL` and a line for the shell, or `NONE`."""
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0
    shell: tuple[str, ...] = ("/bin/sh", "-c")

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line; empty if nothing is to be checked."""
        kind, words = (self.test[0], self.test[1:]) if self.test else ("NONE", ())
        if kind == "CMD-SHELL":
            return (*self.shell, *words[:1])
        return words if kind == "CMD" else ()


class Probe(Message):
    """One run of the command."""

    started_at_ns: int
    ended_at_ns: int
    exit_code: int
    """-1 if it took too long or could not be run."""
    output: str = ""


class Health(Message):
    """What the checks of a run say."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[Probe, ...] = ()
    """The newest five, oldest first."""
