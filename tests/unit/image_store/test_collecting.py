"""Garbage: only what two passes agree on, what nobody renewed, and never a blob with a reference."""

import os
from pathlib import Path

from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.core.collecting import Link, doomed, unmarked

OLD, NEW = 100.0, 1000.0
LINKS = [Link("a", "sha256:1", OLD), Link("a", "sha256:2", OLD), Link("a", "sha256:3", NEW)]


def test_one_pass_alone_dooms_nothing() -> None:
    assert doomed(LINKS, set(), set(), 500) == []
    suspects = unmarked(LINKS, {("a", "sha256:1")})
    assert suspects == {("a", "sha256:2"), ("a", "sha256:3")}
    assert [link.digest for link in doomed(LINKS, set(), suspects, 500)] == ["sha256:2"]


def test_what_is_marked_again_stays() -> None:
    assert doomed(LINKS, {("a", "sha256:2")}, {("a", "sha256:2")}, 500) == []


def test_a_blob_goes_with_its_last_reference_and_a_renewed_one_stays(tmp_path: Path) -> None:
    files = BlobFiles(tmp_path)
    digest = files.put("one", b"data")
    files.link("two", digest)
    future_s = files.path_of(digest).stat().st_mtime + 10
    (one, two) = sorted(files.links.all(), key=lambda link: link.repository)
    files.unlink_stale([one], future_s)
    assert files.drop_unlinked(future_s) == []
    assert files.has("two", digest)
    past_s = future_s - 100
    files.unlink_stale([two], past_s)
    assert files.has("two", digest)
    files.unlink_stale([two], future_s)
    assert files.drop_unlinked(past_s) == []
    assert files.drop_unlinked(future_s) == [digest]
    assert not files.path_of(digest).exists()


def test_naming_a_reference_renews_it(tmp_path: Path) -> None:
    files = BlobFiles(tmp_path)
    digest = files.put("group/one", b"data")
    (link,) = files.links.all()
    path = next((tmp_path / "links").glob("*/*"))
    os.utime(path, (1, 1))
    files.link("group/one", digest)
    (renewed,) = files.links.all()
    assert link.key == renewed.key == ("group/one", digest)
    assert renewed.renewed_at_s > 1
