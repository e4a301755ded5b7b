"""Health from probes, as moby judges it."""

from labfleet_proto.healthchecks import Health, HealthCheck, HealthStatus, Probe
from labfleet_runtime_agent.core import probing

CHECK = HealthCheck(test=("CMD", "true"), retries=2, start_period_ns=1000)
S = 1_000_000_000


def probe(code: int, at: int = 5000) -> Probe:
    return Probe(started_at_ns=at, ended_at_ns=at + 1, exit_code=code)


def after(health: Health, *codes: int, at: int = 5000) -> Health:
    for code in codes:
        health = probing.judged(CHECK, health, probe(code, at), 0)
    return health


def test_so_many_failures_in_a_row_make_it_ill() -> None:
    assert after(Health(), 1).status is HealthStatus.STARTING
    assert after(Health(), 1, -1).status is HealthStatus.UNHEALTHY
    assert after(Health(), 1, 0, 1).status is HealthStatus.HEALTHY
    assert after(Health(), 0, 1, 1, 1).failing_streak == 3
    assert after(Health(), 1, 1, 0).status is HealthStatus.HEALTHY


def test_failures_in_the_start_period_do_not_count_before_the_first_success() -> None:
    young = after(Health(), 1, 1, 1, at=500)
    assert (young.status, young.failing_streak) == (HealthStatus.STARTING, 0)
    assert after(Health(), 0, 1, 1, at=500).status is HealthStatus.UNHEALTHY


def test_the_newest_five_probes_are_kept() -> None:
    log = after(Health(), 0, 1, 2, 3, 4, 5).log
    assert [each.exit_code for each in log] == [1, 2, 3, 4, 5]
    assert probing.begun(after(Health(), 1, 1)).status is HealthStatus.STARTING


def test_what_ended_is_not_healthy() -> None:
    ended = probing.ended(after(Health(), 0))
    assert ended is not None
    assert ended.status is HealthStatus.UNHEALTHY
    assert probing.ended(None) is None


def test_times_have_dockers_defaults() -> None:
    check = HealthCheck(test=("CMD", "true"), start_period_ns=60 * S)
    assert probing.timeout_s(check) == 30
    assert probing.pause_s(check, Health(), 1) == 5
    assert probing.pause_s(check, Health(), 61 * S) == 30
    assert probing.pause_s(check, Health(status=HealthStatus.HEALTHY), 1) == 30
    quick = check.model_copy(update={"interval_ns": S, "start_interval_ns": S // 2})
    assert probing.pause_s(quick, Health(), 1) == 0.5


def test_the_command_of_a_check() -> None:
    assert HealthCheck(test=("CMD-SHELL", "a b")).argv == ("/bin/sh", "-c", "a b")
    assert HealthCheck(test=("CMD", "a", "b")).argv == ("a", "b")
    assert HealthCheck(test=("NONE",)).argv == ()
    assert HealthCheck(test=("odd",)).argv == ()
