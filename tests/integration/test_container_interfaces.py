"""Namespaces and interfaces of containers on the real kernel, inside a namespace of the test's own."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from labfleet_network.adapters import rtnetlink
from labfleet_network.adapters.namespaces import Namespaces
from labfleet_network.adapters.rtnetlink import Interface
from labfleet_proto.errors import InternalError

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

T = TypeVar("T")
Run = Callable[[Callable[[], T]], T]
_CLONE_NEWNET = 0x40000000
BRIDGE = "lftestbr"


@pytest.fixture
def apart() -> Iterator[Run]:
    """Runs functions in one thread whose network namespace is empty and dies with it."""

    def leave() -> None:
        assert ctypes.CDLL(None).unshare(_CLONE_NEWNET) == 0

    with ThreadPoolExecutor(max_workers=1, initializer=leave) as thread:
        yield lambda work: thread.submit(work).result(20)


@pytest.fixture
def spaces(tmp_path: Path, apart: Run) -> Iterator[Namespaces]:
    # `home` is taken from the thread that makes the object: the empty namespace.
    made = apart(lambda: Namespaces(tmp_path))
    yield made
    for name in made.names():
        apart(lambda n=name: made.remove(n))
    for token in made.spares():
        apart(lambda t=token: made.drop(t))
    made.close()


def _bridge() -> int:
    """A bridge in the current namespace; a program takes the namespace of the thread that starts it."""
    subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    return socket.if_nametoindex(BRIDGE)


def _interface(bridge: int, veth: str = "lftestv1") -> Interface:
    return Interface(
        veth=veth, bridge=bridge, name="eth0", mac="02:42:0a:00:00:02", address="10.0.0.2",
        prefix_len=24, gateway="10.0.0.1", mtu=1450,
    )  # fmt: skip


def _plug(spaces: Namespaces, name: str, interface: Interface) -> None:
    namespace = os.open(str(spaces.path(name)), os.O_RDONLY)
    try:
        rtnetlink.plug([interface], namespace)
    finally:
        os.close(namespace)
    spaces.inside(name, lambda: rtnetlink.configure([interface]))


def _facts() -> dict[str, str]:
    """What the current namespace has: addresses, routes, flags, as /proc and /sys show them."""
    routes = Path("/proc/thread-self/net/route").read_text()
    devices = Path("/proc/thread-self/net/dev").read_text()
    local = Path("/proc/thread-self/net/fib_trie").read_text()
    return {"routes": routes, "devices": devices, "addresses": local}


def test_a_ready_namespace_is_given_and_configured(spaces: Namespaces, apart: Run) -> None:
    token = apart(spaces.make)
    assert spaces.spares() == {token}
    spaces.give(token, "lftest-c1")
    assert (spaces.names(), spaces.spares()) == ({"lftest-c1"}, set())
    apart(lambda: _plug(spaces, "lftest-c1", _interface(_bridge())))
    inside = apart(lambda: spaces.inside("lftest-c1", _facts))
    assert "10.0.0.2" in inside["addresses"]
    assert "127.0.0.1" in inside["addresses"]  # lo is up
    assert "eth0\t00000000\t0100000A" in inside["routes"]
    outside = apart(_facts)
    assert "lftestv1" in outside["devices"]
    assert "eth0" not in outside["devices"]


def test_a_removed_namespace_takes_its_interface_with_it(spaces: Namespaces, apart: Run) -> None:
    spaces.give(apart(spaces.make), "lftest-c1")
    apart(lambda: spaces.remove("lftest-c1"))
    assert spaces.path("lftest-c1") is None
    assert (spaces.names(), spaces.spares()) == (set(), set())
    apart(lambda: spaces.remove("lftest-c1"))  # again is nothing


def test_an_interface_of_an_older_attempt_makes_way(spaces: Namespaces, apart: Run) -> None:
    bridge = apart(_bridge)
    for name in ("lftest-c1", "lftest-c2"):
        spaces.give(apart(spaces.make), name)
        apart(lambda n=name: _plug(spaces, n, _interface(bridge)))
    inside = apart(lambda: spaces.inside("lftest-c2", _facts))
    assert "10.0.0.2" in inside["addresses"]


def test_a_wish_that_the_kernel_refuses_is_named(spaces: Namespaces, apart: Run) -> None:
    spaces.give(apart(spaces.make), "lftest-c1")
    with pytest.raises(InternalError, match="make interface lftestv1"):
        apart(lambda: _plug(spaces, "lftest-c1", _interface(bridge=4_000_000)))
