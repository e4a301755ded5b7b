"""Quotas of tenants over real files: what counts, and what is refused before it is stored."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.core import quotas as core
from labfleet_image_store.core.quotas import Quota, QuotaExceededError
from labfleet_image_store.service.quotas import Quotas
from labfleet_proto.ids import Digest, TenantId
from labfleet_proto.images import ManifestRecord, own_repository

ANN, BOB = TenantId("ann"), TenantId("bob")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Store:
    """Files, manifests and a clock of one test."""

    def __init__(self, directory: Path, quota: Quota) -> None:
        self.files = BlobFiles(directory)
        self.records: list[ManifestRecord] = []
        self.now_ns = 1
        mirror = cast("Any", SimpleNamespace(values=lambda: self.records))
        clock = cast("Any", SimpleNamespace(now_ns=lambda: self.now_ns))
        limits = {ANN: quota}
        self.quotas = Quotas(self.files, mirror, lambda who: limits.get(who, Quota()), clock)

    def push(self, repository: str, *blobs: bytes) -> int:
        """Store an artifact of some blobs; bytes of its manifest."""
        digests = [self.files.put(repository, blob) for blob in blobs]
        parts = [
            {"mediaType": "application/x", "digest": digest, "size": len(blob)}
            for digest, blob in zip(digests, blobs, strict=True)
        ]
        body = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        ).encode()
        self.records.append(
            ManifestRecord(
                repository=repository,
                digest=self.files.put(repository, body),
                media_type=MANIFEST,
                size_bytes=len(body),
                pushed_by=ANN,
                pushed_at_ns=1,
            )
        )
        return len(body)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, Quota(stored_bytes=10_000, repositories=2))


def mine(name: str) -> str:
    return own_repository(ANN, name)


def test_each_blob_counts_once_in_however_many_repositories(store: Store) -> None:
    config, blob = b"{}", bytes(1000)
    size = store.push(mine("one"), config, blob)
    assert store.push(mine("two"), config, blob) == size
    store.push(own_repository(BOB, "one"), config, bytes(5000))
    holding = store.quotas.holding(ANN)
    assert holding.stored_bytes == 2 + 1000 + size
    assert len(holding.repositories) == 2
    assert {who: len(each.repositories) for who, each in store.quotas.every().items()} == {
        ANN: 2,
        BOB: 1,
    }


def test_what_fits_exactly_fits_and_one_byte_more_does_not(store: Store) -> None:
    store.push(mine("one"), b"{}", bytes(1000))
    left = 10_000 - store.quotas.holding(ANN).stored_bytes
    store.quotas.check(mine("one"), {"sha256:new": left})
    with pytest.raises(QuotaExceededError, match=r"quota of tenant ann .* 10 kB"):
        store.quotas.check(mine("one"), {"sha256:new": left + 1})
    store.quotas.check(own_repository(BOB, "one"), {"sha256:new": 1 << 40})  # who has no quota


def test_what_is_there_stays_usable_when_a_quota_is_lowered(tmp_path: Path) -> None:
    store = Store(tmp_path, Quota(stored_bytes=10))
    store.push(mine("one"), b"{}", bytes(1000))
    store.quotas.check(mine("two"), store.quotas.below(mine("one"), store.records[0].digest))
    with pytest.raises(QuotaExceededError):
        store.quotas.begin(mine("one"))


def test_a_new_repository_beyond_the_quota_is_refused(store: Store) -> None:
    for name in ("one", "two"):
        store.push(mine(name), b"{}", b"same")
    store.quotas.begin(mine("one"))
    store.quotas.begin(mine("_none"))  # images without a name are in none
    with pytest.raises(QuotaExceededError, match="may have 2 repositories"):
        store.quotas.begin(mine("three"))


def test_a_removed_image_counts_no_more_at_once(store: Store) -> None:
    store.push(mine("one"), b"{}", bytes(9000))
    store.records.clear()
    assert store.quotas.holding(ANN).stored_bytes == 0


def test_a_blob_without_a_manifest_counts_for_a_while(store: Store) -> None:
    digest = store.files.put(mine("one"), bytes(9000))
    store.quotas.received(mine("one"), digest)
    assert store.quotas.has(mine("one"), digest)
    with pytest.raises(QuotaExceededError):
        store.quotas.check(mine("one"), {"sha256:new": 2000})
    store.now_ns += 3600 * 10**9
    store.quotas.check(mine("one"), {"sha256:new": 2000})
    assert not store.quotas.has(mine("one"), Digest(digest))


def test_a_blob_that_is_taken_away_again_counts_no_more(store: Store) -> None:
    digest = store.files.put(mine("one"), bytes(9000))
    store.quotas.received(mine("one"), digest)
    store.files.unlink(mine("one"), digest)
    assert store.quotas.holding(ANN).stored_bytes == 0


def test_uploads_side_by_side_share_the_quota(store: Store) -> None:
    first, second = (store.files.uploads.begin(mine(name)) for name in ("one", "two"))
    store.quotas.announce(first, 7000)
    with pytest.raises(QuotaExceededError):
        store.quotas.announce(second, 7000)
    store.quotas.settle(first)  # the client left before it sent anything
    store.quotas.announce(second, 7000)
    store.files.uploads.cancel(second)
    store.quotas.announce(first, 10_000)
    with pytest.raises(QuotaExceededError):
        store.quotas.announce(first, 10_001)
    store.files.uploads.cancel(first)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from((1, 900, 4000)), st.booleans()), max_size=20
    )
)
def test_no_order_of_chunks_stores_more_than_the_quota(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]]
) -> None:
    store = Store(tmp_path_factory.mktemp("store"), Quota(stored_bytes=10_000))
    uploads = [store.files.uploads.begin(mine("box")) for _ in range(3)]
    for number, size, is_over in steps:
        upload = uploads[number]
        try:
            store.quotas.announce(upload, upload.size + size)
        except QuotaExceededError:
            store.files.uploads.cancel(upload)
            uploads[number] = store.files.uploads.begin(mine("box"))
        else:
            store.files.uploads.append(upload, bytes(size))
            if is_over:
                store.quotas.settle(upload)
        assert sum(each.size for each in store.files.uploads.all()) <= 10_000
    for upload in uploads:
        store.files.uploads.cancel(upload)


def test_a_room_is_for_all_blobs_of_one_request(store: Store) -> None:
    room = store.quotas.room(mine("_none"))
    room.check(6000)
    room.take(6000)
    room.check(4000)
    with pytest.raises(QuotaExceededError):
        room.check(4001)
    store.quotas.room(own_repository(BOB, "_none")).check(1 << 40)


def test_sizes_are_said_for_people() -> None:
    assert [core.size(count) for count in (5, 1500, 20 * 10**9)] == ["5 bytes", "1.5 kB", "20 GB"]
