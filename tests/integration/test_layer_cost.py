"""What fetching and serving a layer costs the agent itself, beside a thread that copies the same bytes.

The agent's loop serves all containers of its host: bytes that pass through it are paid by all of them.
"""

import hashlib
import os
import socket
import statistics
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm import one_host
from tests.farm.layer_hosts import TestStore, image, running_farm
from tests.farm.nats import NatsServer
from tests.farm.plain_store import plain_store

from labfleet_proto.ids import Digest
from labfleet_proto.images import LayerRef
from labfleet_runtime_agent.adapters import unpacking

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="unpacking needs root"),
]

SIZE = 300_000_000
ROUNDS = 3
FETCH_BAR = 2.5
"""Times the copy; an asynchronous HTTP client and pipes took 8."""
PASS_ON_BAR = 3.5
"""Times the copy, for who serves and who fetches together; through the loop it was 7."""


@pytest.fixture
def home() -> Iterator[Path]:
    with one_host.directory() as found:
        yield found


def _layer(home: Path) -> tuple[LayerRef, Path]:
    """A plain layer of noise."""
    (home / "noise").write_bytes(os.urandom(SIZE))
    blob = home / "blob.tar"
    with tarfile.open(blob, "w") as tar:
        tar.add(home / "noise", "noise")
    (home / "noise").unlink()
    digest = Digest(f"sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}")
    kind = "application/vnd.oci.image.layer.v1.tar"
    size = blob.stat().st_size
    return LayerRef(digest=digest, diff_id=digest, media_type=kind, size_bytes=size), blob


def _copied_s(port: int, target: Path) -> float:
    """Processor time of the plainest way from a socket to a file."""
    began_s = time.process_time()
    buffer = memoryview(bytearray(1 << 18))
    with socket.create_connection(("127.0.0.1", port)) as link, target.open("wb", 0) as file:
        link.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while count := link.recv_into(buffer):
            file.write(buffer[:count])
    took_s = time.process_time() - began_s
    target.unlink()
    return took_s


async def _costs(home: Path, nats: Path, layer: LayerRef, port: int) -> tuple[float, float]:
    """What it costs to fetch from the store and to pass on, in copies."""
    copy_s = _copied_s(port, home / "copy")
    server, store, costs = NatsServer(nats), TestStore(), []
    try:
        async with running_farm(server.url, store, nats, limit_s=120) as farm:
            farm.silence_s = 10
            store.url = f"http://127.0.0.1:{port}"
            hosts = [await farm.host(name, unpacking.unpack) for name in ("a", "b")]
            for host in hosts:
                began_s = time.process_time()
                await host.layers.ensure(image((layer, b"")))
                costs.append((time.process_time() - began_s) / copy_s)
            assert hosts[0].dialled == [0]
    finally:
        server.stop()
    return costs[0], costs[1]


async def test_bytes_of_layers_cost_about_a_copy(home: Path) -> None:
    layer, blob = _layer(home)
    rounds = []
    with plain_store(blob) as port:
        for number in range(ROUNDS):
            (home / f"{number}").mkdir()
            rounds.append(await _costs(home, home / f"{number}", layer, port))
    fetch, pass_on = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(f"copies: {fetch:.2f} to fetch, {pass_on:.2f} to pass on")  # noqa: T201 - the figures
    assert fetch <= FETCH_BAR
    assert pass_on <= PASS_ON_BAR
