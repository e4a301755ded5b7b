"""P8: ten hosts want one large image at once, and the store's cable is slow."""

import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from tests.farm.fleet import LABFLEET, running_fleet, sweep_leftovers
from tests.farm.slow_store import slow_store

HOSTS = 10
IMAGE_BYTES = int(os.environ.get("LABFLEET_TEST_P8_BYTES", "1000000000"))
RATE_MBIT = 400
_PIECE = 1 << 20
_LAYERS = 4
_LIMIT_S = 1500
GOAL = 1.5
"""Images out of the store."""


class _Noise(io.RawIOBase):
    """Random bytes: nothing on the way can make them fewer."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        data = os.urandom(min(size, self._left))
        self._left -= len(data)
        return data


def context(path: Path) -> None:
    """A build of one layer for each of some files."""
    recipe = b"FROM busybox\n" + b"".join(
        f"COPY noise{number} /\n".encode() for number in range(_LAYERS)
    )
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(recipe)
        tar.addfile(info, io.BytesIO(recipe))
        for number in range(_LAYERS):
            info = tarfile.TarInfo(f"noise{number}")
            info.size = IMAGE_BYTES // _LAYERS
            tar.addfile(info, _Noise(info.size))  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_hosts_pull_one_image_and_the_store_sends_it_about_once(tmp_path: Path) -> None:
    sweep_leftovers()
    context(tmp_path / "context.tar")
    with running_fleet(tmp_path, hosts=HOSTS, suffix="-p8") as fleet:
        with (tmp_path / "context.tar").open("rb") as file:
            subprocess.run(
                ["docker", "build", "-q", "-t", "large:1", "-"],
                stdin=file,
                env=fleet.env,
                check=True,
                timeout=_LIMIT_S,
                capture_output=True,
            )
        (tmp_path / "context.tar").unlink()
        with slow_store(fleet, RATE_MBIT) as store:
            before = store.sent_bytes()
            began_s = time.monotonic()
            done = subprocess.run(
                [LABFLEET, "image", "pre-pull", "large:1", "--fleet", fleet.plan.name],
                check=True,
                timeout=_LIMIT_S,
                capture_output=True,
                text=True,
            )
            took_s = time.monotonic() - began_s
            images = (store.sent_bytes() - before) / IMAGE_BYTES
        print(  # noqa: T201 - the figures are what this test is for
            f"P8: {HOSTS} hosts, {IMAGE_BYTES / 1e6:.0f} MB, store at {RATE_MBIT} Mbit/s: {images:.2f} images "
            f"out of the store, {took_s:.1f} s (the store alone: {8 * HOSTS * IMAGE_BYTES / RATE_MBIT / 1e6:.0f} s)"
        )
        assert f"is on {HOSTS} of {HOSTS} hosts" in done.stdout
        assert images <= GOAL
