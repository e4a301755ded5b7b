"""Subjects on the bus."""

from fnmatch import fnmatchcase

import pytest

from labfleet_proto import subjects
from labfleet_proto.ids import HostId, TenantId


def matches(pattern: str, subject: str) -> bool:
    """NATS matching: `*` is one token, `>` is one or more at the end."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(map(fnmatchcase, given, wanted))


def test_a_job_goes_to_its_host() -> None:
    assert subjects.job("runtime-agent", HostId("h1"), "hold") == "job.runtime-agent.h1.hold"


def test_a_job_without_host_goes_to_any() -> None:
    assert subjects.job("scheduler", None, "place") == "job.scheduler.any.place"


@pytest.mark.parametrize("host", [None, HostId("h1")])
def test_an_instance_hears_its_own_jobs(host: HostId | None) -> None:
    assert matches(subjects.jobs_of("network", host), subjects.job("network", host, "check"))


def test_an_instance_does_not_hear_the_jobs_of_another_host() -> None:
    to_other = subjects.job("network", HostId("h2"), "check")
    assert not matches(subjects.jobs_of("network", HostId("h1")), to_other)


def test_a_tenant_hears_its_own_events_only() -> None:
    mine = subjects.event(TenantId("ann"), "container", "c1")
    assert matches(subjects.events_of(TenantId("ann")), mine)
    assert not matches(subjects.events_of(TenantId("bob")), mine)


def test_the_operator_hears_the_events_of_all() -> None:
    assert matches(subjects.events_of(None), subjects.event(TenantId("ann"), "image", "i1"))


def test_no_service_is_pinged_by_the_subject_of_all() -> None:
    assert subjects.ping("api") != subjects.PING_ALL
