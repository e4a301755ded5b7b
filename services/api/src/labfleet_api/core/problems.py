"""Our errors in docker's words: status code and message."""

from pydantic import ValidationError

from labfleet_proto.errors import InvalidRequestError, LabfleetError

_STATUS = {
    "invalid": 400,
    "command_not_runnable": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "exists": 409,
    "not_modified": 304,
    "too_large": 413,
    "too_slow": 408,
    "not_implemented": 501,
    "rate_limited": 429,
    "unavailable": 503,
    "handed_on": 503,
    "transient": 503,
    "stale": 503,
}


class BodyTooLargeError(InvalidRequestError):
    """The request's body is longer than the route takes. Docker's proxies say 413."""

    code = "too_large"


class BodyTooSlowError(InvalidRequestError):
    """The request's body does not come. HTTP's 408."""

    code = "too_slow"


def status_of(error: LabfleetError) -> int:
    """The HTTP status; 500 for all that docker's engine reports so (no room, port in use, disk full)."""
    return _STATUS.get(error.code, 500)


def field_problem(exc: ValidationError, prefix: str = "") -> InvalidRequestError:
    """Name the first field that is wrong and the rule that it breaks."""
    first = exc.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    name = f"{prefix}{where}" or "the body"
    return InvalidRequestError(f"{name}: {first['msg']}")
