"""An agent that is killed while it fetches a layer: its next life fetches the rest, and the container starts."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.slow_store import slow_store

HOST = "host2"
AGENT = f"runtime-agent-{HOST}"
NOISE = 20_000_000
RATE_MBIT = 40
SPARE = 1.2
"""Heads of packets, and what was on its way when the agent died."""


@pytest.fixture
def image(fleet: Fleet) -> Iterator[str]:
    """An image that no host has, with more bytes than a blink brings."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in (
            ("Dockerfile", b"FROM busybox\nCOPY noise /noise\n"),
            ("noise", os.urandom(NOISE)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    fleet.docker("build", "-q", "-t", "killed:1", "-", stdin=tar.getvalue())
    yield "killed:1"
    fleet.docker("rmi", "-f", "killed:1")


def _parts(blobs: Path) -> list[Path]:
    return list(blobs.glob("*.part"))


def _has_come(blobs: Path, least: int) -> bool:
    return any(path.stat().st_size >= least for path in _parts(blobs))


def test_the_next_life_fetches_only_the_rest(fleet: Fleet, image: str) -> None:
    state = fleet.plan.state_dir / "hosts" / HOST
    (blobs,) = state.rglob("blobs")
    with slow_store(fleet, RATE_MBIT) as store:
        before = store.sent_bytes()
        wish = ("--label", f"labfleet.constraint=host=={HOST}", "--name", "late")
        with fleet.start("run", "-d", *wish, image, "ls", "/noise") as client:
            until(lambda: _has_come(blobs, NOISE // 2), timeout_s=30)
            old = fleet.kill_service(AGENT)
            until(lambda: fleet.service_pid(AGENT) not in (0, old))
            _, err = client.communicate(timeout=60)
        assert client.returncode == 0, err
        assert store.sent_bytes() - before < SPARE * NOISE
    assert fleet.docker("wait", "late").out == "0"
    assert fleet.docker("logs", "late").out == "/noise"
    assert _parts(blobs) == []
    assert list((blobs.parent / "layers.new").iterdir()) == []
