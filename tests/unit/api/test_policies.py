"""Restart policies, health checks and updates of a request, in docker's words."""

from typing import Any

import pytest
from tests.unit.proto.records import container_spec, limits

from labfleet_api.core import policies
from labfleet_api.core.bodies import HealthConfig
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.image_defaults import ImageHealth
from labfleet_api.core.limits_body import RestartPolicyBody
from labfleet_api.core.updates import UpdateBody, updated
from labfleet_proto.errors import ConflictError, InvalidRequestError, NotImplementedYetError
from labfleet_proto.restarts import Restart, RestartPolicy


@pytest.mark.parametrize(
    ("name", "retries", "words"),
    [
        ("sometimes", 0, "unknown policy 'sometimes'"),
        ("always", 3, "can only be used with 'on-failure'"),
        ("no", -1, "and cannot be negative"),
        ("on-failure", -1, "maximum retry count cannot be negative"),
    ],
)
def test_a_policy_that_there_is_not(name: str, retries: int, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        policies.restart_policy(RestartPolicyBody(Name=name, MaximumRetryCount=retries))


def test_policies_as_they_are_written() -> None:
    assert policies.restart_policy(None).name is Restart.NO
    assert policies.restart_policy(RestartPolicyBody(MaximumRetryCount=3)).name is Restart.NO
    given = RestartPolicyBody(Name="on-failure", MaximumRetryCount=3)
    assert policies.restart_policy(given) == RestartPolicy(name=Restart.ON_FAILURE, most_retries=3)
    with pytest.raises(InvalidRequestError, match="can't create 'AutoRemove' container"):
        policies.policy_of_new(HostConfigBody(AutoRemove=True, RestartPolicy=given))


def test_a_check_is_merged_with_the_images_field_by_field() -> None:
    image = ImageHealth(test=("CMD", "a"), interval_ns=5_000_000, retries=4)
    check = policies.health_check(HealthConfig(Retries=7), image, ())
    assert check is not None
    assert (check.test, check.interval_ns, check.retries) == (("CMD", "a"), 5_000_000, 7)
    assert policies.health_check(None, None, ()) is None
    shell = policies.health_check(HealthConfig(Test=["CMD-SHELL", "x"]), None, ("/bin/bash", "-c"))
    assert shell is not None
    assert shell.argv == ("/bin/bash", "-c", "x")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Interval": 10}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"StartPeriod": -1}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_a_check_out_of_range(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        policies.health_check(HealthConfig(**fields), None, ())


def test_an_update_leaves_alone_what_it_does_not_name() -> None:
    spec = container_spec(limits=limits(cpu_shares=512))
    changed = updated(spec, UpdateBody(Memory=128 << 20, PidsLimit=7))
    assert changed.limits == spec.limits.model_copy(update={"memory_bytes": 128 << 20, "pids": 7})
    assert changed.restart == spec.restart
    assert changed.asked_host_config == {"Memory": 128 << 20, "PidsLimit": 7}
    quota = updated(spec, UpdateBody(CpuQuota=25_000, CpuPeriod=50_000)).limits
    assert (quota.cpu_millis, quota.cpu_quota_us, quota.cpu_period_us) == (500, 25_000, 50_000)
    again = updated(spec, UpdateBody(RestartPolicy=RestartPolicyBody(Name="always")))
    assert again.restart.name is Restart.ALWAYS


@pytest.mark.parametrize(
    ("asked", "fields", "error", "words"),
    [
        ({}, {"Memory": 1 << 20}, InvalidRequestError, "Minimum memory limit allowed is 6MB"),
        ({}, {"NanoCpus": 1, "CpuQuota": 5000}, InvalidRequestError, "Conflicting options"),
        ({"NanoCpus": 1}, {"CpuQuota": 5000}, ConflictError, "NanoCPUs has already been set"),
        ({"CpuQuota": 1}, {"NanoCpus": 10**9}, ConflictError, "CPU Quota has already been set"),
        ({"MemorySwap": 64 << 20}, {"Memory": 65 << 20}, ConflictError, "already set memoryswap"),
        ({}, {"CpuRealtimePeriod": 1}, NotImplementedYetError, "CpuRealtimePeriod"),
    ],
)
def test_an_update_that_is_refused(
    asked: dict[str, Any], fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        updated(container_spec(asked_host_config=asked), UpdateBody(**fields))


def test_a_container_that_goes_by_itself_gets_no_policy() -> None:
    body = UpdateBody(RestartPolicy=RestartPolicyBody(Name="always"))
    with pytest.raises(ConflictError, match="AutoRemove is enabled"):
        updated(container_spec(auto_remove=True), body)
