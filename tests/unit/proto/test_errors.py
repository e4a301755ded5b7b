"""Errors on the wire: what was raised on one side is raised on the other."""

import pytest

from labfleet_proto import errors
from labfleet_proto.errors import (
    InternalError,
    LabfleetError,
    NoRoomError,
    PermanentError,
    TransientError,
)
from labfleet_proto.problem import Problem

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, LabfleetError)
    and kind not in (LabfleetError, PermanentError)  # bases without a code of their own
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_the_bus_as_itself(kind: type[LabfleetError]) -> None:
    assert type(kind("cannot do it").to_problem().to_error()) is kind


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_its_words(kind: type[LabfleetError]) -> None:
    back = kind("cannot do it").to_problem().to_error()
    assert (back.message, str(back)) == ("cannot do it", "cannot do it")


def test_when_to_try_again_crosses_the_bus() -> None:
    error = NoRoomError("full")
    error.retry_after_s = 2.5
    assert error.to_problem().to_error().retry_after_s == 2.5


def test_codes_are_those_that_old_services_know() -> None:
    assert {kind.code for kind in KINDS} == {
        "internal",
        "invalid",
        "not_found",
        "conflict",
        "forbidden",
        "not_modified",
        "not_implemented",
        "command_not_runnable",
        "digest_mismatch",
        "transient",
        "unavailable",
        "rate_limited",
        "handed_on",
        "no_room",
        "disk_full",
        "port_in_use",
        "stale",
    }


def test_no_two_kinds_share_a_code() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_an_unknown_code_is_an_internal_error() -> None:
    error = Problem(code="of_next_year", message="what?").to_error()
    assert type(error) is InternalError


def test_a_problem_survives_json() -> None:
    problem = Problem(code="stale", message="generation 3 is old", retry_after_s=0.5)
    assert Problem.model_validate_json(problem.model_dump_json()) == problem


def test_an_error_that_may_pass_is_told_from_one_that_cannot() -> None:
    kinds = [kind for kind in KINDS if kind is not InternalError]
    assert all(
        issubclass(kind, PermanentError) != issubclass(kind, TransientError) for kind in kinds
    )
