"""A gigabyte of layers unpacks at least as fast as `tar -x` on the same machine times 0.7."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.farm import one_host

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(os.geteuid() != 0, reason="owners need root"),
]

MIB = 1 << 20
ROUNDS = 3
BAR = 0.7
SHAPES = {"large": (16, 32 * MIB), "small": (65_536, 8 << 10)}
"""Files and their size: 512 MiB of each."""


@pytest.fixture(scope="module")
def layers() -> Iterator[dict[tuple[str, str], Path]]:
    """Tars of both shapes, plain and by gzip."""
    with one_host.directory() as home:
        made = {}
        for shape, (count, size) in SHAPES.items():
            tree = home / shape
            for number in range(count):
                folder = tree / f"{number >> 8}"
                folder.mkdir(parents=True, exist_ok=True)
                half = os.urandom(min(size, MIB) // 2)  # packs to about a half
                (folder / f"{number}").write_bytes(
                    (half + bytes(len(half))) * (size // (2 * len(half)))
                )
            plain = home / f"{shape}.tar"
            subprocess.run(["tar", "-C", str(tree), "-cf", str(plain), "."], check=True)
            shutil.rmtree(tree)
            subprocess.run(["gzip", "-1", "-k", str(plain)], check=True)
            made[shape, "plain"] = plain
            made[shape, "gzip"] = plain.with_suffix(".tar.gz")
        yield made


def _tar(layer: Path, target: Path) -> None:
    subprocess.run(["tar", "-xf", str(layer), "-C", str(target)], check=True)


def _ours(layer: Path, target: Path) -> None:
    child = [sys.executable, "-m", "labfleet_runtime_agent.adapters.unpack_layer", str(target)]
    with layer.open("rb") as blob:
        done = subprocess.run(child, stdin=blob, capture_output=True, check=True)
    assert b'"diff_id"' in done.stdout


def _took_s(work: Callable[[Path, Path], None], layer: Path) -> float:
    target = layer.parent / "target"
    target.mkdir()
    os.sync()
    began_s = time.monotonic()
    work(layer, target)
    took_s = time.monotonic() - began_s
    shutil.rmtree(target)
    return took_s


@pytest.mark.parametrize("packing", ["plain", "gzip"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_layer_unpacks_nearly_as_fast_as_by_tar(
    layers: dict[tuple[str, str], Path], shape: str, packing: str
) -> None:
    rounds = [
        (_took_s(_tar, layers[shape, packing]), _took_s(_ours, layers[shape, packing]))
        for _ in range(ROUNDS)
    ]
    tar_s, ours_s = (statistics.median(times) for times in zip(*rounds, strict=True))
    assert tar_s / ours_s >= BAR, f"tar {tar_s:.2f} s, ours {ours_s:.2f} s"
