"""Images of ten gigabytes go in and out, and the store's memory stays small."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.farm.lone_store import LoneStore, lone_store

LAYER_BYTES = 5 << 30
"""Two of them; a blob has at most 8 GiB."""
MOST_BYTES = 150 << 20
PIECE = 1 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def _peak_bytes(store: LoneStore) -> int:
    """The most memory that the process ever had (VmHWM)."""
    rows = Path(f"/proc/{store.pid}/status").read_text().splitlines()
    (row,) = [each for each in rows if each.startswith("VmHWM:")]
    return int(row.split()[1]) * 1024


def _bytes(seed: int) -> Iterator[bytes]:
    """Pieces of which no two are the same."""
    noise = os.urandom(PIECE - 16)
    for number in range(LAYER_BYTES // PIECE):
        yield number.to_bytes(8, "big") + seed.to_bytes(8, "big") + noise


def _push(client: httpx.Client, seed: int) -> str:
    begun = client.post("/big/blobs/uploads/")
    where = begun.headers["location"].removeprefix("/v2")
    digest = hashlib.sha256()

    def told() -> Iterator[bytes]:
        for piece in _bytes(seed):
            digest.update(piece)
            yield piece

    assert client.patch(where, content=told()).status_code == httpx.codes.ACCEPTED
    name = f"sha256:{digest.hexdigest()}"
    done = client.put(where, params={"digest": name})
    assert done.status_code == httpx.codes.CREATED, done.text
    return name


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ten_gigabytes_there_and_back_in_little_memory(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if shutil.disk_usage(tmp_path).free < 3 * LAYER_BYTES:
        pytest.skip("too little room on this disk")
    with lone_store(tmp_path / "store", tmp_path / "log") as store, store.client() as client:
        client.timeout = httpx.Timeout(600)
        layers = [_push(client, seed) for seed in range(2)]
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers},
        }).encode()  # fmt: skip
        name = f"sha256:{hashlib.sha256(config).hexdigest()}"
        sent = client.post("/big/blobs/uploads/", params={"digest": name}, content=config)
        assert sent.status_code == httpx.codes.CREATED
        about = [{"mediaType": LAYER, "digest": each, "size": LAYER_BYTES} for each in layers]
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": about,
            "config": {"mediaType": CONFIG, "digest": name, "size": len(config)},
        }  # fmt: skip
        put = client.put("/big/manifests/latest", json=manifest, headers={"Content-Type": MANIFEST})
        assert put.status_code == httpx.codes.CREATED, put.text
        after_push = _peak_bytes(store)
        for layer in layers:
            found = hashlib.sha256()
            with client.stream("GET", f"/big/blobs/{layer}") as answer:
                for piece in answer.iter_raw(PIECE):
                    found.update(piece)
            assert f"sha256:{found.hexdigest()}" == layer
        after_pull = _peak_bytes(store)
        record_property("peak_mib_of_push", after_push >> 20)
        record_property("peak_mib_of_push_and_pull", after_pull >> 20)
        assert after_pull < MOST_BYTES, (after_push, after_pull)
    shutil.rmtree(tmp_path / "store")
