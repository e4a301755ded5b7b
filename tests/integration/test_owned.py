"""Namespaces made for a container's ids, on the real kernel."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from labfleet_network.adapters.owned import new_namespace
from labfleet_proto.networks import UserIds

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

_NS_GET_USERNS = 0xB701
_WALL = 0x4000_0000
IDS = UserIds(first=1_700_000, count=65_536)
INSIDE = "import sys; print(open('/proc/self/uid_map').read())"


def test_a_namespace_is_owned_by_the_ids_it_was_made_for() -> None:
    network = new_namespace(IDS)
    owner = fcntl.ioctl(network, _NS_GET_USERNS)
    try:
        inside = subprocess.run(
            ["nsenter", f"--user=/proc/self/fd/{owner}", f"--net=/proc/self/fd/{network}",
             sys.executable, "-c", INSIDE],
            pass_fds=(owner, network), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert inside.stdout.split() == ["0", str(IDS.first), str(IDS.count)]
    finally:
        os.close(network)
        os.close(owner)


def test_many_at_once_are_different_and_leave_no_process() -> None:
    found: list[int] = []

    def some() -> None:
        found.extend(new_namespace(IDS) for _ in range(20))

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len({os.fstat(each).st_ino for each in found}) == 80
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG | _WALL)
    finally:
        for each in found:
            os.close(each)


def test_ids_that_cannot_be_are_refused() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        new_namespace(UserIds(first=2**32 - 10, count=65_536))
