"""Errors in docker's words: every class of ours has docker's status."""

from collections.abc import Iterator

import pytest
from pydantic import BaseModel, ValidationError

from labfleet_api.core.problems import BodyTooLargeError, field_problem, status_of
from labfleet_proto import errors
from labfleet_proto.errors import LabfleetError

STATUS = {
    LabfleetError: 500,
    errors.InternalError: 500,
    errors.PermanentError: 500,
    errors.InvalidRequestError: 400,
    errors.CommandNotRunnableError: 400,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.NotModifiedError: 304,
    errors.NotImplementedYetError: 501,
    errors.DigestMismatchError: 500,
    errors.TransientError: 503,
    errors.RateLimitedError: 429,
    errors.UnavailableError: 503,
    errors.HandedOnError: 503,
    errors.StaleError: 503,
    errors.NoRoomError: 500,
    errors.DiskFullError: 500,
    errors.PortInUseError: 500,
}


def kinds(kind: type[LabfleetError]) -> Iterator[type[LabfleetError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


def test_every_class_of_the_contracts_has_a_status() -> None:
    known = {kind for kind in kinds(LabfleetError) if kind.__module__ == errors.__name__}
    assert known == set(STATUS)


@pytest.mark.parametrize(("kind", "status"), STATUS.items())
def test_a_class_has_dockers_status(kind: type[LabfleetError], status: int) -> None:
    assert status_of(kind("why")) == status


@pytest.mark.parametrize(("kind", "status"), STATUS.items())
def test_a_class_keeps_its_status_across_the_bus(kind: type[LabfleetError], status: int) -> None:
    assert status_of(kind("why").to_problem().to_error()) == status


def test_a_body_that_is_too_large_has_a_status_of_its_own() -> None:
    assert status_of(BodyTooLargeError("4 MiB")) == 413


class _Inner(BaseModel):
    Memory: int


class _Outer(BaseModel):
    HostConfig: _Inner


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"HostConfig": {"Memory": "much"}}', "HostConfig.Memory: "),
        ('{"HostConfig": 3}', "HostConfig: "),
        ("[]", "the body: "),
    ],
)
def test_the_first_wrong_field_is_named(text: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate_json(text)
    assert field_problem(caught.value).message.startswith(words)
