"""Docker's notation of the keys that detach."""

import pytest

from labfleet_api.core.detach_keys import parse
from labfleet_proto.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("", b""),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,DEL", b"\x00\x1b\x1c\x1d\x1e\x1f\x7f"),
        ("~,.", b"~."),
    ],
)
def test_keys_have_codes(text: str, codes: bytes) -> None:
    assert parse(text) == codes


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-A", "ab", ",", "a,", "ctrl-1", "é", "del"])
def test_a_key_that_there_is_not_is_named(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="Invalid detach keys"):
        parse(text)
