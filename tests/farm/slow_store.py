"""A fleet's image store behind a slow cable: what it sends to the hosts is limited, and counted by the kernel."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from tests.farm.fleet import Fleet

_SENT = re.compile(r"class htb 1:1 .*\n\s*Sent (\d+) bytes")


def _tc(*words: str) -> str:
    done = subprocess.run(["tc", *words], capture_output=True, text=True, check=True)
    return done.stdout


@dataclass(frozen=True)
class SlowStore:
    """The limit on the underlay's bridge: hosts reach one another across it without passing here."""

    bridge: str

    def sent_bytes(self) -> int:
        """What left the store for the hosts, heads and acknowledgements of TCP included."""
        found = _SENT.search(_tc("-s", "class", "show", "dev", self.bridge))
        assert found is not None
        return int(found[1])


@contextlib.contextmanager
def slow_store(fleet: Fleet, rate_mbit: int) -> Iterator[SlowStore]:
    """Let the store send at most so much to all hosts together."""
    bridge, port = fleet.plan.bridge, str(fleet.plan.registry_port)
    on = ("dev", bridge, "parent", "1:")
    _tc("qdisc", "add", "dev", bridge, "root", "handle", "1:", "htb", "default", "2")
    try:
        _tc("class", "add", *on, "classid", "1:1", "htb", "rate", f"{rate_mbit}mbit")
        _tc("class", "add", *on, "classid", "1:2", "htb", "rate", "10gbit")
        match = ("match", "ip", "sport", port, "0xffff", "flowid", "1:1")
        _tc("filter", "add", *on, "protocol", "ip", "prio", "1", "u32", *match)
        yield SlowStore(bridge)
    finally:
        _tc("qdisc", "del", "dev", bridge, "root")
