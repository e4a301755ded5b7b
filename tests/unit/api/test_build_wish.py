"""The query of a build: what is taken, what is refused by name."""

import pytest

from labfleet_api.core.build_wish import order_of_hosts, wish_of
from labfleet_proto.containers import Ulimit
from labfleet_proto.errors import ForbiddenError, InvalidRequestError, NotImplementedYetError
from labfleet_proto.ids import HostId, TenantId


def test_what_is_asked_is_taken() -> None:
    query = {
        "dockerfile": "./deep/File",
        "buildargs": '{"A": "1", "B": null}',
        "labels": '{"x": "y"}',
        "networkmode": "course",
        "shmsize": "1000000",
        "cachefrom": '["a", "b"]',
        "platform": "linux/amd64",
    }
    wish = wish_of(query, ["a:1", "", "b"], ["one:10.0.0.1,two:10.0.0.2"])
    assert wish.dockerfile == "deep/File"
    assert wish.cache_from == ("a", "b")
    assert wish.names == ("a:1", "b")
    assert wish.build_args == {"A": "1"}
    assert wish.extra_hosts == ("one:10.0.0.1", "two:10.0.0.2")
    assert (wish.network, wish.limits.shm_bytes) == ("course", 1_000_000)
    assert wish_of({"networkmode": "none"}, [], []).is_offline
    limits = wish_of({"ulimits": '[{"Name": "nofile", "Soft": 1, "Hard": 2}]'}, [], []).ulimits
    assert limits == (Ulimit(name="nofile", soft=1, hard=2),)
    assert wish_of({}, [], []).network == ""


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"remote": "client-session"}, NotImplementedYetError),
        ({"ulimits": "{"}, InvalidRequestError),
        ({"ulimits": '[{"Name": "x", "Soft": 1, "Hard": 1}]'}, InvalidRequestError),
        ({"isolation": "hyperv"}, InvalidRequestError),
        ({"version": "2"}, NotImplementedYetError),
        ({"networkmode": "host"}, ForbiddenError),
        ({"networkmode": "container:x"}, ForbiddenError),
        ({"cgroupparent": "/x"}, ForbiddenError),
        ({"dockerfile": "../../etc/passwd"}, InvalidRequestError),
        ({"buildargs": "[1]"}, InvalidRequestError),
        ({"platform": "foobar"}, InvalidRequestError),
        ({"platform": "linux/arm64"}, InvalidRequestError),
        ({"memory": "x"}, InvalidRequestError),
    ],
)
def test_what_is_not_served_is_refused(query: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        wish_of(query, [], [])


def test_a_lost_host_moves_only_its_own_tenants() -> None:
    hosts = [HostId(f"host{number}") for number in range(6)]
    for number in range(50):
        tenant = TenantId(f"t{number}")
        first, second, *_ = order_of_hosts(tenant, hosts)
        assert order_of_hosts(tenant, [each for each in hosts if each != first])[0] == second
