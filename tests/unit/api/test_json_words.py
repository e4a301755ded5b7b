"""Bodies that are no JSON, in the words of Go's decoder."""

import pytest

from labfleet_api.core.json_words import check_content_type, json_problem
from labfleet_proto.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b"{invalid json",
            "invalid JSON: invalid character 'i' looking for beginning of object key string",
        ),
        (b"{} trailing", "unexpected content after JSON"),
        (b"  ", "invalid JSON: got EOF while reading request body"),
        (b'{"a": [1, 2', "invalid JSON: unexpected EOF"),
        (b'{"a": "b', "invalid JSON: unexpected EOF"),
        (b"x", "invalid JSON: invalid character 'x' looking for beginning of value"),
        (b'{"a" 1}', "invalid JSON: invalid character '1' after object key"),
        (b'{"a": 1 "b"}', "invalid JSON: invalid character '\"' after object key:value pair"),
        (b'{"a": [1 2]}', "invalid JSON: invalid character '2' after array element"),
        (b'{"a": "\n"}', r"invalid JSON: invalid character '\n' in string literal"),
    ],
)
def test_what_is_no_json_is_told_as_docker_does(body: bytes, words: str) -> None:
    assert json_problem(body).message == words


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
def test_a_body_says_that_it_is_json(kind: str) -> None:
    check_content_type(kind, has_body=True)


def test_without_a_body_no_type_is_needed() -> None:
    check_content_type(None, has_body=False)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "text/plain",
            r"unsupported Content-Type header \(text/plain\): must be 'application/json'",
        ),
        (None, r"malformed Content-Type header \(\): mime: no media type"),
    ],
)
def test_another_type_is_refused(kind: str | None, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        check_content_type(kind, has_body=True)
