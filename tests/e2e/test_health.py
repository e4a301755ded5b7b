"""Health checks: run by the hosts, shown by the api."""

import json

from tests.e2e.test_changes import actions_of
from tests.farm.fleet import Fleet, until

ON_HOST1 = ("--label", "labfleet.constraint=host==host1")
QUICK = ("--health-interval", "200ms", "--health-timeout", "2s", "--health-retries", "2")
CHECK = ("--health-cmd", "echo seen; test ! -e /ill", *QUICK)


def health(fleet: Fleet, name: str) -> dict:
    return dict(fleet.inspect(name)["State"]["Health"])


def test_health_follows_what_the_command_says(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "h1", *CHECK, "busybox", "sleep", "600")
    until(lambda: health(fleet, "h1")["Status"] == "healthy")
    assert "(healthy)" in fleet.docker("ps", "--format", "{{.Status}}").out
    assert fleet.docker("ps", "-q", "--filter", "health=healthy").out
    assert fleet.docker("ps", "-q", "--filter", "health=none").out == ""
    last = health(fleet, "h1")["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (0, "seen\n")
    fleet.docker("exec", "h1", "touch", "/ill")
    until(lambda: health(fleet, "h1")["Status"] == "unhealthy")
    assert health(fleet, "h1")["FailingStreak"] >= 2
    assert "(unhealthy)" in fleet.docker("ps", "--format", "{{.Status}}").out
    fleet.docker("exec", "h1", "rm", "/ill")
    until(lambda: health(fleet, "h1")["Status"] == "healthy")
    until(lambda: len(health(fleet, "h1")["Log"]) == 5)
    until(lambda: actions_of(fleet, "h1").count("health_status: healthy") == 2)
    seen = actions_of(fleet, "h1")
    told = [each for each in seen if each.startswith("health_status")]
    assert told == ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]
    assert "exec_create: /bin/sh -c echo seen; test ! -e /ill" in seen
    assert "exec_die" in seen
    fleet.docker("stop", "-t", "0", "h1")
    assert health(fleet, "h1")["Status"] == "unhealthy"
    fleet.docker("start", "h1")
    until(lambda: health(fleet, "h1")["Status"] == "healthy")


def test_a_check_that_takes_too_long_or_cannot_run(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "slow", "--health-cmd", "echo a; sleep 60",
                 "--health-interval", "100ms", "--health-timeout", "300ms", "--health-retries",
                 "1", "busybox", "sleep", "600")  # fmt: skip
    until(lambda: health(fleet, "slow")["Status"] == "unhealthy")
    last = health(fleet, "slow")["Log"][-1]
    assert last["ExitCode"] == -1
    assert "Health check exceeded timeout (300ms)" in last["Output"]
    until(lambda: len(health(fleet, "slow")["Log"]) == 5)
    lines = fleet.docker("top", "slow", "-o", "pid,args").out.splitlines()
    assert sum(line.endswith(" sleep 60") for line in lines) <= 1  # of the probe of now
    api = ["--entrypoint", "", "--no-healthcheck"]
    fleet.docker("run", "-d", "--name", "none", *api, "busybox", "sleep", "600")
    assert "Health" not in fleet.inspect("none")["State"]
    assert fleet.inspect("none")["Config"]["Healthcheck"]["Test"] == ["NONE"]


def test_failures_in_the_start_period_do_not_count(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "sp", "--health-cmd", "test -e /ready",
                 "--health-start-period", "60s", "--health-start-interval", "100ms",
                 "--health-interval", "1h", "--health-retries", "1",
                 "busybox", "sleep", "600")  # fmt: skip
    until(lambda: len(health(fleet, "sp")["Log"]) >= 3)
    assert (health(fleet, "sp")["Status"], health(fleet, "sp")["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in fleet.docker("ps", "--format", "{{.Status}}").out
    fleet.docker("exec", "sp", "touch", "/ready")
    until(lambda: health(fleet, "sp")["Status"] == "healthy")


def test_health_is_right_after_services_were_killed(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "h1", *ON_HOST1, *CHECK, "busybox", "sleep", "600")
    until(lambda: health(fleet, "h1")["Status"] == "healthy")
    for service in ("runtime-agent-host1", "api"):
        old = fleet.kill_service(service)
        until(lambda s=service, o=old: fleet.service_pid(s) not in (0, o))
    fleet.wait_ready()
    assert health(fleet, "h1")["Status"] == "healthy"
    fleet.docker("exec", "h1", "touch", "/ill")
    until(lambda: health(fleet, "h1")["Status"] == "unhealthy")
    assert (
        json.loads(fleet.docker("inspect", "--format", "{{json .Config.Healthcheck}}", "h1").out)[
            "Interval"
        ]
        == 200_000_000
    )


def test_the_check_of_an_image_holds_unless_the_container_says_otherwise(fleet: Fleet) -> None:
    fleet.docker("create", "--name", "base", "busybox", "sleep", "600")
    fleet.docker("commit", "--change", "HEALTHCHECK --interval=200ms --retries=1 CMD test ! -e /ill",
                 "base", "checked")  # fmt: skip
    fleet.docker("run", "-d", "--name", "own", "checked")
    until(lambda: health(fleet, "own")["Status"] == "healthy")
    fleet.docker("run", "-d", "--name", "merged", "--health-retries", "7", "checked")
    check = fleet.inspect("merged")["Config"]["Healthcheck"]
    assert check["Test"] == ["CMD-SHELL", "test ! -e /ill"]
    assert (check["Interval"], check["Retries"]) == (200_000_000, 7)
    fleet.docker("run", "-d", "--name", "without", "--no-healthcheck", "checked")
    assert "Health" not in fleet.inspect("without")["State"]
    fleet.docker("rm", "-f", "own", "merged", "without", "base")
    fleet.docker("rmi", "checked")
