"""What of a request's body is read."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from labfleet_api.core.bodies import ExecStartBody
from labfleet_api.core.commits import CommitBody
from labfleet_api.service.http import read_body
from labfleet_proto.errors import InvalidRequestError


def request(data: bytes) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": data, "more_body": False}

    headers = [(b"content-type", b"application/json")]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"null\n", b" null "])
def test_null_says_nothing_as_an_empty_body_does(data: bytes) -> None:
    for model in (CommitBody, ExecStartBody):
        assert asyncio.run(read_body(request(data), model)) == model()


@pytest.mark.parametrize("data", [b"[]", b"1", b'"null"', b"nul", b"null null"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        asyncio.run(read_body(request(data), CommitBody))
