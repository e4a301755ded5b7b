"""A class of hundreds at once, in the default network of the operators."""

import threading
from pathlib import Path

import pytest
from tests.bench.client import Client
from tests.farm.fleet import Fleet, running_fleet, until_clean

STUDENTS = 300
AT_ONCE = 30
SPEC = {
    "Image": "busybox",
    "Cmd": ["sleep", "3600"],
    "HostConfig": {"Memory": 6 << 20, "NanoCpus": 10_000_000, "PidsLimit": 8},
}


def _start_some(fleet: Fleet, count: int, failures: list[str]) -> None:
    client = Client(fleet.plan.socket)
    client.connect()
    try:
        for _ in range(count):
            client.start(client.create(SPEC))
    except Exception as exc:
        failures.append(repr(exc))
        raise
    finally:
        client.close()


@pytest.mark.long
def test_hundreds_run_at_once_each_with_an_address_of_its_own(tmp_path: Path) -> None:
    """More than a /24 of addresses holds, which is what any other network has by default."""
    with running_fleet(tmp_path, hosts=3, suffix="-class") as fleet:
        failures: list[str] = []
        share = (fleet, STUDENTS // AT_ONCE, failures)
        threads = [threading.Thread(target=_start_some, args=share) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        running = fleet.docker("ps", "-q", "--no-trunc").out.split()
        assert len(set(running)) == STUDENTS
        form = "{{.NetworkSettings.Networks.bridge.IPAddress}}"
        addresses = fleet.docker("inspect", "-f", form, *running, timeout_s=120).out.split()
        assert len(set(addresses)) == STUDENTS
        first, last = running[0], addresses[-1]
        asked = fleet.docker("exec", first, "nc", "-w", "5", last, "1", code=1)
        assert "refused" in asked.err  # by the other one, so that it was reached
        fleet.docker("rm", "-f", *running, timeout_s=600)
        until_clean(fleet)
