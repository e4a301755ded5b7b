"""Blobs as files: whole or absent, uploads that outlive a restart, links by repository."""

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labfleet_image_store.adapters import uploads
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_proto.errors import (
    ConflictError,
    DigestMismatchError,
    DiskFullError,
    InvalidRequestError,
    NotFoundError,
)

DATA = b"layer" * 1000
LIMIT_S = 20


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Stores:
    """Opens the directory as often as a test restarts the store; closes what is left open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._opened: list[BlobFiles] = []

    def open(self) -> BlobFiles:
        self._opened.append(BlobFiles(self._directory))
        return self._opened[-1]

    def close(self) -> None:
        for upload in [upload for files in self._opened for upload in files.uploads.all()]:
            upload.file.close()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    stores = Stores(tmp_path)
    yield stores
    stores.close()


@pytest.fixture
def files(stores: Stores) -> BlobFiles:
    return stores.open()


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_an_upload_becomes_a_blob(files: BlobFiles, tmp_path: Path) -> None:
    upload = files.uploads.begin("web")
    files.uploads.append(upload, DATA[:7])
    files.uploads.append(upload, DATA[7:])
    files.finish(upload, digest_of(DATA))
    assert files.read(digest_of(DATA), 1 << 20) == DATA
    assert files.size(digest_of(DATA)) == len(DATA)
    assert files.has("web", digest_of(DATA))
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_blob_is_absent_until_it_is_whole(files: BlobFiles) -> None:
    upload = files.uploads.begin("web")
    files.uploads.append(upload, DATA)
    assert not files.has("web", digest_of(DATA))
    assert files.total() == (0, 0)
    with pytest.raises(NotFoundError, match="not in the store"):
        files.size(digest_of(DATA))


def test_a_wrong_digest_keeps_nothing(files: BlobFiles, tmp_path: Path) -> None:
    upload = files.uploads.begin("web")
    files.uploads.append(upload, DATA)
    with pytest.raises(DigestMismatchError, match=digest_of(DATA)):
        files.finish(upload, digest_of(b"other"))
    assert everything(tmp_path) == []
    with pytest.raises(NotFoundError):
        files.uploads.find("web", upload.id)


def test_a_cancelled_upload_keeps_nothing(files: BlobFiles, tmp_path: Path) -> None:
    upload = files.uploads.begin("web")
    files.uploads.append(upload, DATA)
    files.uploads.cancel(upload)
    assert everything(tmp_path) == []


def test_an_upload_survives_a_restart(files: BlobFiles, stores: Stores) -> None:
    """Every byte that was acknowledged is there, also when the first process was killed."""
    upload = files.uploads.begin("web")
    files.uploads.append(upload, DATA[:7])
    again = stores.open()
    resumed = again.uploads.find("web", upload.id)
    assert resumed.size == 7
    again.uploads.append(resumed, DATA[7:])
    again.finish(resumed, digest_of(DATA))
    assert again.read(digest_of(DATA), 1 << 20) == DATA


def test_an_upload_belongs_to_its_repository(files: BlobFiles) -> None:
    upload = files.uploads.begin("web")
    assert files.uploads.find("web", upload.id) is upload
    with pytest.raises(NotFoundError):
        files.uploads.find("other", upload.id)


@pytest.mark.parametrize("name", ["nosuch", "", "..", "../blobs", "a.repository"])
def test_an_unknown_upload_is_not_found(files: BlobFiles, name: str) -> None:
    with pytest.raises(NotFoundError, match="not known"):
        files.uploads.find("web", name)


def test_a_blob_that_is_there_is_taken_again(files: BlobFiles, tmp_path: Path) -> None:
    for repository in ("web", "other"):
        upload = files.uploads.begin(repository)
        files.uploads.append(upload, DATA)
        files.finish(upload, digest_of(DATA))
    assert files.total() == (1, len(DATA))
    assert list((tmp_path / "uploads").iterdir()) == []


def test_an_empty_blob_is_a_blob(files: BlobFiles) -> None:
    files.finish(files.uploads.begin("web"), digest_of(b""))
    assert files.read(digest_of(b""), 10) == b""


def test_a_blob_larger_than_the_limit_is_refused(
    files: BlobFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST_BLOB_BYTES", 10)
    upload = files.uploads.begin("web")
    files.uploads.append(upload, b"0123456789")
    with pytest.raises(InvalidRequestError, match="larger than 10 bytes"):
        files.uploads.append(upload, b"x")


def test_a_chunk_must_begin_where_the_last_one_ended(files: BlobFiles) -> None:
    upload = files.uploads.begin("web")
    files.uploads.append(upload, b"abc")
    files.uploads.check_offset(upload, 3)
    with pytest.raises(ConflictError, match="begins at 2, the upload is at 3"):
        files.uploads.check_offset(upload, 2)


def test_a_full_disk_takes_no_upload(files: BlobFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_RESERVE_BYTES", 1 << 60)
    with pytest.raises(DiskFullError):
        files.uploads.begin("web")


def test_a_small_blob_is_put_whole(files: BlobFiles, tmp_path: Path) -> None:
    assert files.put("web", DATA) == files.put("web", DATA) == digest_of(DATA)
    assert files.has("web", digest_of(DATA))
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_large_blob_is_not_read_whole(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    with pytest.raises(InvalidRequestError, match="larger than 10 bytes"):
        files.read(digest, 10)


def test_a_repository_reads_only_what_it_refers_to(files: BlobFiles) -> None:
    digest = files.put("lab/web", DATA)
    assert not files.has("lab", digest)
    files.link("lab", digest)
    files.link("lab", digest)
    assert files.has("lab", digest)
    assert files.unlink("lab", digest)
    assert not files.unlink("lab", digest)
    assert not files.has("lab", digest)
    assert files.has("lab/web", digest)


def test_a_reference_without_its_blob_is_none(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    files.path_of(digest).unlink()
    assert not files.has("web", digest)


def test_old_uploads_are_swept_and_those_that_go_on_are_not(
    files: BlobFiles, stores: Stores, tmp_path: Path
) -> None:
    left = stores.open().uploads.begin("web")  # of a process that is gone
    kept = files.uploads.begin("web")
    now = (tmp_path / "uploads" / left.id).stat().st_mtime
    files.uploads.sweep(now + 3600)
    assert files.uploads.find("web", kept.id)
    assert (tmp_path / "uploads" / left.id).exists()
    os.utime(tmp_path / "uploads" / kept.id, (now + 24 * 3600, now + 24 * 3600))  # a chunk came
    files.uploads.sweep(now + 25 * 3600)
    assert not (tmp_path / "uploads" / left.id).exists()
    assert (tmp_path / "uploads" / kept.id).exists()


def test_an_upload_that_nobody_goes_on_with_is_closed(files: BlobFiles, tmp_path: Path) -> None:
    left = files.uploads.begin("web")
    files.uploads.sweep((tmp_path / "uploads" / left.id).stat().st_mtime + 25 * 3600)
    assert left.file.closed
    assert list((tmp_path / "uploads").iterdir()) == []
    with pytest.raises(NotFoundError):
        files.uploads.find("web", left.id)


def test_what_is_acknowledged_is_on_the_disk(
    files: BlobFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are flushed before the name appears, and then the name."""
    order: list[str] = []
    flush, rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        order.append("flush")
        flush(fd)

    def move(path: Path, target: Path) -> Path:
        order.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", move)
    upload = files.uploads.begin("web")
    files.uploads.append(upload, DATA)
    files.finish(upload, digest_of(DATA))
    assert order[0] == "flush"
    assert order[order.index("rename") + 1] == "flush"


class SlowDisk:
    """Each flush waits until all are let go."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, _descriptor: int) -> None:
        self.waiting.release()
        assert self.gate.wait(LIMIT_S)


def test_a_reference_that_another_has_just_made_is_not_promised_before_it_is_on_the_disk(
    files: BlobFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = files.put("web", DATA)
    files.link("other", files.put("other", b"so that its folder is there"))
    disk = SlowDisk()
    monkeypatch.setattr(os, "fsync", disk)
    with ThreadPoolExecutor(2) as threads:
        try:
            first = threads.submit(files.link, "other", digest)
            assert disk.waiting.acquire(timeout=LIMIT_S)
            second = threads.submit(files.link, "other", digest)
            assert disk.waiting.acquire(timeout=LIMIT_S)  # it flushes, too
            assert not first.done()
            assert not second.done()
        finally:
            disk.gate.set()
        first.result(LIMIT_S)
        second.result(LIMIT_S)


def test_a_reference_made_by_a_killed_process_is_flushed_by_the_next(
    files: BlobFiles, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a power cut takes what is in the kernel's memory: the next process must not take it for safe."""
    digest = files.put("web", DATA)
    flushed: list[str] = []
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        flush(descriptor)

    files.links.renew("web", digest, 1.0)
    monkeypatch.setattr(os, "fsync", fsync)
    stores.open()
    assert "web" in flushed


def test_what_is_renewed_was_there(files: BlobFiles) -> None:
    digest = files.put("web", DATA)
    assert files.renew("web", digest)
    assert not files.renew("other", digest)
    files.path_of(digest).unlink()
    assert not files.renew("web", digest)


def test_a_repository_loses_all_its_references_at_once(files: BlobFiles) -> None:
    first, second = files.put("lab/web", DATA), files.put("lab/web", DATA * 2)
    files.link("other", second)
    assert files.links.repositories() == ["lab/web", "other"]
    assert files.unlink_all("lab/web") == 2
    assert files.links.repositories() == ["other"]
    assert not files.has("lab/web", first)
    assert files.has("other", second)
