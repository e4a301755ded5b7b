"""Many who push one tag at once: it ends at one of them, and all of each is there."""

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.farm.lone_store import LoneStore, lone_store
from tests.farm.store_worker import digest_of, push_image

PUSHERS, ROUNDS = 6, 5
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LoneStore]:
    with lone_store(tmp_path / "store", tmp_path / "log") as made:
        yield made


def _push(store: LoneStore, layer: bytes, tag: str) -> bytes:
    config = json.dumps({"author": os.urandom(8).hex()}).encode()
    with store.client() as client:
        return push_image(client, "web", tag, (config, layer))


def test_pushes_of_one_tag_at_once_end_at_one_of_them(store: LoneStore) -> None:
    shared = random.Random(1).randbytes(100_000)  # all write the same blob at once
    with ThreadPoolExecutor(PUSHERS) as threads, store.client() as client:
        for number in range(ROUNDS):
            tag = f"t{number}"
            pushed = list(threads.map(lambda tag: _push(store, shared, tag), [tag] * PUSHERS))
            assert client.get(f"/web/manifests/{tag}").content in pushed
            for manifest in pushed:
                found = client.get(f"/web/manifests/{digest_of(manifest)}")
                assert found.content == manifest
                config = json.loads(manifest)["config"]["digest"]
                assert client.get(f"/web/blobs/{config}").is_success
            last = _push(store, shared, tag)  # one after the other: the last one it is
            assert client.get(f"/web/manifests/{tag}").content == last
        assert client.get(f"/web/blobs/{digest_of(shared)}").content == shared
