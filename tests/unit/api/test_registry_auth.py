"""`X-Registry-Auth` as clients send it, and as nobody should."""

import base64
import json

import pytest

from labfleet_api.core.registry_auth import login_of
from labfleet_proto.upstreams import RegistryLogin


def _word(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


@pytest.mark.parametrize(
    ("document", "login"),
    [
        ({"username": "a", "password": "b?~"}, RegistryLogin(username="a", password="b?~")),
        ({"auth": "YTpi"}, RegistryLogin(username="a", password="b")),
        ({"identitytoken": "t"}, RegistryLogin(identity_token="t")),
        ({"registrytoken": "t"}, RegistryLogin(registry_token="t")),
        ({}, RegistryLogin()),
        ([], RegistryLogin()),
        ({"username": 1}, RegistryLogin()),
    ],
)
def test_a_login_is_read(document: object, login: RegistryLogin) -> None:
    word = _word(document)
    assert login_of(word) == login
    assert login_of(word.rstrip("=")) == login
    standard = base64.b64encode(base64.urlsafe_b64decode(word)).decode()
    assert login_of(standard) == login


@pytest.mark.parametrize("header", ["", "no base64!", "e30", "x" * 20_000, "W10="])
def test_what_cannot_be_read_is_none(header: str) -> None:
    assert login_of(header).is_empty
