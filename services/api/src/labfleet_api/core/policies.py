"""Restart policies and health checks of a request, checked in docker's words."""

from labfleet_api.core.bodies import HealthConfig
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.image_defaults import ImageHealth
from labfleet_api.core.limits_body import RestartPolicyBody
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.healthchecks import HealthCheck
from labfleet_proto.restarts import Restart, RestartPolicy

_LEAST_NS = 1_000_000
_TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval")


def restart_policy(body: RestartPolicyBody | None) -> RestartPolicy:
    """The policy that a body names; none is `no`. Raises InvalidRequestError."""
    name, retries = (body.Name, body.MaximumRetryCount) if body else ("", 0)
    if not name:
        return RestartPolicy()
    try:
        kind = Restart(name)
    except ValueError as exc:
        raise InvalidRequestError(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ) from exc
    if kind is Restart.ON_FAILURE:
        if retries < 0:
            raise InvalidRequestError(
                "invalid restart policy: maximum retry count cannot be negative"
            )
        return RestartPolicy(name=kind, most_retries=retries)
    if retries != 0:
        negative = " and cannot be negative" if retries < 0 else ""
        raise InvalidRequestError(
            "invalid restart policy: maximum retry count can only be used with "
            f"'on-failure'{negative}"
        )
    return RestartPolicy(name=kind)


def policy_of_new(host: HostConfigBody) -> RestartPolicy:
    """The policy of a container to be created. Raises InvalidRequestError, also with `--rm`."""
    policy = restart_policy(host.RestartPolicy)
    if host.AutoRemove and policy.name is not Restart.NO:
        raise InvalidRequestError("can't create 'AutoRemove' container with restart policy")
    return policy


def health_check(
    body: HealthConfig | None, image: ImageHealth | None, shell: tuple[str, ...]
) -> HealthCheck | None:
    """The check of request and image, merged field by field as docker does.

    Raises InvalidRequestError.
    """
    if body is not None:
        _check(body)
    base = image or ImageHealth()
    test = tuple((body.Test if body else None) or base.test)
    if not test:
        return None
    asked = body or HealthConfig()
    return HealthCheck(
        test=test,
        interval_ns=asked.Interval or base.interval_ns,
        timeout_ns=asked.Timeout or base.timeout_ns,
        start_period_ns=asked.StartPeriod or base.start_period_ns,
        start_interval_ns=asked.StartInterval or base.start_interval_ns,
        retries=asked.Retries or base.retries,
        shell=shell or ("/bin/sh", "-c"),
    )


def _check(body: HealthConfig) -> None:
    for name in _TIMES:
        value = getattr(body, name)
        if value != 0 and value < _LEAST_NS:
            raise InvalidRequestError(f"{name} in Healthcheck cannot be less than 1ms")
    if body.Retries < 0:
        raise InvalidRequestError("Retries in Healthcheck cannot be negative")
