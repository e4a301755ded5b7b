"""Where containers go, as a user sees it."""

import json
import socket
from pathlib import Path

from tests.farm.fleet import Fleet, running_fleet


def test_spread_over_hosts_with_a_reason(fleet: Fleet) -> None:
    for number in range(6):
        fleet.docker("run", "-d", "--name", f"s{number}", "busybox", "sleep", "600")
    hosts = [fleet.host_of(f"s{number}") for number in range(6)]
    assert sorted(hosts) == ["host1", "host1", "host2", "host2", "host3", "host3"]
    assert "spread" in fleet.inspect("s0")["Node"]["Reason"]


def test_constraints(fleet: Fleet) -> None:
    for number in range(3):
        fleet.docker("run", "-d", "--name", f"k{number}", "--label",
                     "labfleet.constraint=host==host2", "busybox", "sleep", "600")  # fmt: skip
        assert fleet.host_of(f"k{number}") == "host2"
    done = fleet.docker("run", "--label", "labfleet.constraint=nonsense", "busybox", code=125)
    assert "label==value" in done.err


def test_a_second_fleet_beside_the_first_packs(fleet: Fleet, tmp_path: Path) -> None:
    """Another name: other ports, directories, kernel names; the options --score pack and --tcp."""
    fleet.docker("run", "-d", "--name", "same", "busybox", "sleep", "600")
    with socket.create_server(("127.0.0.1", 0)) as free:
        tcp = f"127.0.0.1:{free.getsockname()[1]}"
    with running_fleet(tmp_path, hosts=2, suffix="-b", score="pack", tcp=tcp) as other:
        for number in range(4):
            other.docker("run", "-d", "--name", f"p{number}", "busybox", "sleep", "600")
        assert len({other.host_of(f"p{number}") for number in range(4)}) == 1
        other.docker("run", "-d", "--name", "same", "busybox", "sleep", "600")
        assert other.inspect("same")["Id"] != fleet.inspect("same")["Id"]
        words = ("-H", f"tcp://{tcp}", "run", "--rm", "-i", "busybox", "cat")
        assert "authentication required" in other.docker(*words, code=125).err
        token = other.labfleet("token", "create", "--tenant", "operators").out.strip()
        headers = {"HttpHeaders": {"Authorization": f"Bearer {token}"}}
        (tmp_path / "config.json").write_text(json.dumps(headers))
        assert other.docker(*words, stdin=b"hi").out == "hi"
    assert fleet.docker("exec", "same", "echo", "still").out == "still"
