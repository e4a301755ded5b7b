"""Damage: found by whoever reads, set aside, never taken for whole, gone with the next good bytes."""

import hashlib
from pathlib import Path

import pytest

from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.blob_reading import BlobReading
from labfleet_image_store.adapters.scrub_memory import ScrubMemory
from labfleet_image_store.core import scrubbing
from labfleet_image_store.core.collecting import Link, certain
from labfleet_image_store.core.scrubbing import Progress, Way
from labfleet_proto.errors import NotFoundError
from labfleet_proto.ids import Digest, HostId
from labfleet_proto.images import FETCHED, TagRecord, own_repository
from labfleet_proto.layers import BlobState, LayerCopy

DATA = b"layer" * 1000


def flip(files: BlobFiles, digest: str) -> None:
    with files.path_of(digest).open("r+b") as file:
        file.seek(17)
        byte = file.read(1)
        file.seek(17)
        file.write(bytes([byte[0] ^ 4]))


def read_through(files: BlobFiles, digest: str) -> BlobReading:
    reading = BlobReading(files.path_of(digest))
    while reading.step():
        pass
    reading.close()
    return reading


@pytest.fixture
def files(tmp_path: Path) -> BlobFiles:
    return BlobFiles(tmp_path)


def test_a_pass_is_finished_before_the_next_one_and_begins_anew_when_its_time_has_come() -> None:
    assert scrubbing.is_due(Progress(100, "sha256:aa", is_over=False), 101, 1000)
    assert not scrubbing.is_due(Progress(100, "", is_over=True), 1099, 1000)
    assert scrubbing.is_due(Progress(100, "", is_over=True), 1100, 1000)
    assert scrubbing.is_due(Progress(100, "", is_over=True), 50, 1000)  # the clock was put back


def test_a_pass_goes_on_behind_what_it_read_last() -> None:
    every = [Digest(f"sha256:{letter}") for letter in "cab"]
    assert scrubbing.left(every, "") == sorted(every)
    assert scrubbing.left(every, "sha256:a") == ["sha256:b", "sha256:c"]
    assert scrubbing.left(every, "sha256:aa") == ["sha256:b", "sha256:c"]


def test_the_rate_is_held_by_resting() -> None:
    assert scrubbing.pause_s(4_000_000, 1, 1_000_000) == 3
    assert scrubbing.pause_s(4_000_000, 9, 1_000_000) == 0


def test_the_place_is_kept_and_what_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    memory = ScrubMemory(tmp_path)
    assert memory.load() == Progress()
    memory.save(Progress(5.0, "sha256:aa", is_over=False))
    assert ScrubMemory(tmp_path).load() == Progress(5.0, "sha256:aa", is_over=False)
    (tmp_path / "scrub.json").write_text('{"begun')
    assert memory.load() == Progress()


def test_only_registries_that_gave_a_repository_its_blobs_are_asked() -> None:
    def tag(repository: str, upstream: str) -> TagRecord:
        return TagRecord(
            repository=repository, tag="1", manifest_digest=Digest("sha256:aa"), updated_at_ns=0,
            upstream=upstream,
        )  # fmt: skip

    fetched = own_repository(FETCHED, "quay.io_0123abcd/lab/tool")
    found = scrubbing.ways(
        ["busybox", "_ann/ghcr.io/a/b", "evil.example/x", fetched],
        [
            tag("busybox", "docker.io"),
            tag("_ann/ghcr.io/a/b", "ghcr.io"),
            tag("evil.example/x", ""),
            tag("other", "docker.io"),
        ],
    )
    assert found == [
        Way("quay.io", "lab/tool", fetched),
        Way("docker.io", "busybox", "busybox"),
        Way("ghcr.io", "a/b", "_ann/ghcr.io/a/b"),
    ]


def test_hosts_with_all_of_a_blob_are_asked_and_the_latest_to_fail_last() -> None:
    def copy(host: str, blob: BlobState) -> LayerCopy:
        return LayerCopy(host=HostId(host), digest=Digest("sha256:aa"), blob=blob)

    copies = [
        copy("h1", BlobState.WHOLE),
        copy("h2", BlobState.WHOLE),
        copy("h3", BlobState.PARTIAL),
        copy("h4", BlobState.NONE),
        copy("h5", BlobState.WHOLE),
    ]
    assert scrubbing.hosts_with(copies, {}) == ["h1", "h2", "h5"]
    failed = {HostId("h1"): 20.0, HostId("h2"): 10.0, HostId("h9"): 5.0}
    assert scrubbing.hosts_with(copies, failed) == ["h5", "h2", "h1"]


def test_where_a_manifest_cannot_be_read_nothing_goes() -> None:
    links = [Link("a", "sha256:1", 1.0), Link("b", "sha256:1", 1.0)]
    assert certain(links, {"a"}) == [links[1]]


def test_a_blob_that_is_read_again_says_what_it_is_now(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    assert read_through(files, digest).digest == digest
    flip(files, digest)
    assert read_through(files, digest).digest != digest


def test_a_damaged_blob_is_absent_until_its_bytes_come_again(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    flip(files, digest)
    assert files.condemn(digest, read_through(files, digest).inode)
    assert not files.has("web", digest)
    assert files.links.refers("web", digest)
    (damaged,) = files.quarantine.all()
    assert (damaged.digest, damaged.size_bytes) == (digest, len(DATA))
    assert BlobFiles(files.path_of(digest).parents[3]).quarantine.has(
        digest
    )  # after a restart, too
    assert files.put("other", DATA) == digest
    assert files.read(digest, 1 << 20) == DATA
    assert files.has("web", digest)
    assert files.quarantine.all() == []


def test_a_small_blob_is_never_given_damaged(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    flip(files, digest)
    with pytest.raises(NotFoundError, match="damaged"):
        files.read(digest, 1 << 20)
    assert files.quarantine.has(digest)
    assert files.condemnations(digest) == 1


def test_a_push_replaces_bytes_that_have_faded_before_anybody_saw_it(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    flip(files, digest)
    files.put("web", DATA)
    assert files.read(digest, 1 << 20) == DATA


def test_a_blob_that_was_brought_anew_meanwhile_is_not_condemned(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    inode = read_through(files, digest).inode
    with files.path_of(digest).open("rb"):  # so that its inode is not given again
        files.put("web", DATA)
        assert not files.condemn(digest, inode)
    files.path_of(digest).unlink()
    assert not files.condemn(digest, inode)


def test_a_damaged_blob_that_nobody_refers_to_goes(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    files.condemn(digest, read_through(files, digest).inode)
    future_s = files.quarantine.all()[0].found_at_s + 10
    files.drop_unlinked(future_s)
    assert files.quarantine.has(digest)
    files.unlink("web", digest)
    files.drop_unlinked(future_s - 100)
    assert files.quarantine.has(digest)
    files.drop_unlinked(future_s)
    assert not files.quarantine.has(digest)


def test_a_reference_to_nothing_is_lost_unless_it_is_known_as_damaged(files: BlobFiles) -> None:
    first, second = files.put("web", DATA), files.put("web", DATA * 2)
    files.condemn(first, read_through(files, first).inode)
    assert files.lost() == []
    files.path_of(second).unlink()
    assert [link.digest for link in files.lost()] == [second]


def test_what_nobody_takes_up_again_is_gone_after_a_restart(tmp_path: Path) -> None:
    files = BlobFiles(tmp_path)
    upload = files.uploads.begin("web")
    files.uploads.append(upload, DATA)
    upload.file.close()
    uploads = tmp_path / "uploads"
    for name in ("put-12ab", "layer-12ab", "0" * 32, f"{'1' * 32}.repository"):
        (uploads / name).write_bytes(b"half")
    (uploads / f"fetch-{'a' * 64}-{'b' * 16}").write_bytes(b"taken up again")
    again = BlobFiles(tmp_path)
    assert sorted(path.name for path in uploads.iterdir()) == sorted(
        [upload.id, f"{upload.id}.repository", f"fetch-{'a' * 64}-{'b' * 16}"]
    )
    taken_up = again.uploads.find("web", upload.id)
    digest = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    again.finish(taken_up, digest)
    assert again.has("web", digest)
    (left,) = uploads.iterdir()
    assert left.name.startswith("fetch-")
