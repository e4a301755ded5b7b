"""The same request in the words of older versions of the API."""

import pytest

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.older_clients import as_asked_then, prunes_named_volumes
from labfleet_proto.errors import InvalidRequestError

_SEVERAL = CreateBody.model_validate(
    {"NetworkingConfig": {"EndpointsConfig": {"one": {}, "two": {}}}}
)


def test_several_networks_came_with_version_1_44() -> None:
    assert as_asked_then(_SEVERAL, (1, 44)) == _SEVERAL
    with pytest.raises(InvalidRequestError, match="multiple network endpoints"):
        as_asked_then(_SEVERAL, (1, 43))


def test_ipc_was_shareable_unless_something_else_was_said() -> None:
    old = as_asked_then(CreateBody(), (1, 39))
    assert old.HostConfig is not None
    assert old.HostConfig.IpcMode == "shareable"
    assert as_asked_then(CreateBody(), (1, 40)) == CreateBody()
    private = CreateBody.model_validate({"HostConfig": {"IpcMode": "private"}})
    assert as_asked_then(private, (1, 39)) == private


def test_the_size_of_a_console_came_with_version_1_42() -> None:
    sized = CreateBody.model_validate({"HostConfig": {"ConsoleSize": [24, 80]}})
    assert as_asked_then(sized, (1, 42)) == sized
    old = as_asked_then(sized, (1, 41)).HostConfig
    assert old is not None
    assert old.ConsoleSize is None


def test_a_prune_took_all_volumes() -> None:
    assert prunes_named_volumes((1, 41))
    assert not prunes_named_volumes((1, 42))
