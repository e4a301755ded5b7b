"""Health of a run from what its probes say: moby's rules and defaults (`daemon/health.go`)."""

from labfleet_proto.healthchecks import Health, HealthCheck, HealthStatus, Probe

MOST_OUTPUT = 4096
_MOST_LOG = 5
_RETRIES = 3
_INTERVAL_NS = 30_000_000_000
_TIMEOUT_NS = 30_000_000_000
_START_INTERVAL_NS = 5_000_000_000


def begun(before: Health | None) -> Health:
    """The health of a run that begins; what was probed before stays in the log."""
    return Health(log=before.log if before is not None else ())


def ended(health: Health | None) -> Health | None:
    """The health of what does not run: moby calls it unhealthy."""
    if health is None:
        return None
    return health.model_copy(update={"status": HealthStatus.UNHEALTHY})


def timeout_s(check: HealthCheck) -> float:
    """How long one probe may take."""
    return (check.timeout_ns or _TIMEOUT_NS) / 1e9


def pause_s(check: HealthCheck, health: Health, age_ns: int) -> float:
    """How long to wait before the next probe of a run that began `age_ns` ago."""
    interval = check.interval_ns or _INTERVAL_NS
    if health.status is HealthStatus.STARTING and age_ns < check.start_period_ns:
        interval = check.start_interval_ns or _START_INTERVAL_NS
    return interval / 1e9


def judged(check: HealthCheck, health: Health, probe: Probe, started_at_ns: int) -> Health:
    """The health after a probe; one that fails within the start period does not count."""
    log = (*health.log, probe)[-_MOST_LOG:]
    if probe.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, failing_streak=0, log=log)
    is_excused = (
        health.status is HealthStatus.STARTING
        and probe.started_at_ns - started_at_ns < check.start_period_ns
    )
    streak = health.failing_streak + (0 if is_excused else 1)
    status = health.status
    if not is_excused and streak >= (check.retries or _RETRIES):
        status = HealthStatus.UNHEALTHY
    return Health(status=status, failing_streak=streak, log=log)
