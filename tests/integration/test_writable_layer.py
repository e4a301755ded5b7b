"""What changed against an image, read from directories in overlayfs's form."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm import one_host
from tests.farm.one_host import BASE

from labfleet_runtime_agent.adapters.writable_layer import WritableLayer, size_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts need root"),
]


class Disk:
    """Two layers of an image, and a writable one."""

    def __init__(self, home: Path) -> None:
        self.low, self.high, self.upper = (home / name for name in ("low", "high", "upper"))
        for path in (self.low, self.high, self.upper):
            path.mkdir()

    def write(self, layer: Path, name: str, text: str = "text", mtime: int = 1) -> Path:
        path = layer / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.own(layer)
        os.utime(path, (mtime, mtime))
        return path

    def hide(self, layer: Path, name: str) -> None:
        (layer / name).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(layer / name, stat.S_IFCHR | 0o600, 0)

    def empty(self, layer: Path, name: str) -> None:
        """Make a directory that hides the one below."""
        (layer / name).mkdir(parents=True, exist_ok=True)
        os.setxattr(layer / name, "trusted.overlay.opaque", b"y")

    def own(self, layer: Path) -> None:
        owner = BASE if layer == self.upper else 0
        for path in (layer, *layer.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)

    @property
    def layer(self) -> WritableLayer:
        return WritableLayer(self.upper, [self.low, self.high], BASE)

    def changes(self) -> list[str]:
        self.own(self.upper)
        return [f"{'CAD'[change.kind]} {change.path}" for change in self.layer.changes()]

    def tar(self) -> dict[str, tarfile.TarInfo]:
        self.own(self.upper)
        output = io.BytesIO()
        self.layer.write_tar(output)
        with tarfile.open(fileobj=io.BytesIO(output.getvalue())) as archive:
            return {member.name: member for member in archive}


@pytest.fixture
def disk() -> Iterator[Disk]:
    with one_host.directory() as home:
        yield Disk(home)


def test_added_modified_deleted_in_order(disk: Disk) -> None:
    disk.write(disk.low, "etc/passwd")
    disk.write(disk.low, "etc/gone")
    disk.write(disk.high, "etc/same", mtime=5)
    disk.write(disk.upper, "etc/passwd", "longer text")
    disk.write(disk.upper, "etc/same", mtime=5)
    disk.write(disk.upper, "new/deep/file")
    disk.hide(disk.upper, "etc/gone")
    assert disk.changes() == [
        "C /etc", "D /etc/gone", "C /etc/passwd", "A /new", "A /new/deep", "A /new/deep/file",
    ]  # fmt: skip


def test_a_directory_that_was_only_copied_is_no_change(disk: Disk) -> None:
    disk.write(disk.low, "etc/passwd")
    (disk.upper / "etc").mkdir()
    assert disk.changes() == []


def test_what_an_upper_layer_of_the_image_hides_is_new(disk: Disk) -> None:
    disk.write(disk.low, "a/file")
    disk.write(disk.low, "b/file")
    disk.hide(disk.high, "a/file")
    disk.empty(disk.high, "b")
    disk.write(disk.upper, "a/file")
    disk.write(disk.upper, "b/file")
    assert disk.changes() == ["C /a", "A /a/file", "C /b", "A /b/file"]


def test_a_directory_made_anew_names_what_is_gone(disk: Disk) -> None:
    disk.write(disk.low, "dir/one")
    disk.write(disk.high, "dir/two")
    disk.hide(disk.high, "dir/three")
    disk.empty(disk.upper, "dir")
    disk.write(disk.upper, "dir/new")
    assert disk.changes() == ["C /dir", "A /dir/new", "D /dir/one", "D /dir/two"]


def test_a_file_becomes_a_directory_and_the_reverse(disk: Disk) -> None:
    disk.write(disk.low, "file")
    disk.write(disk.low, "dir/inner")
    disk.write(disk.upper, "file/inner")
    disk.write(disk.upper, "dir")
    assert disk.changes() == ["C /dir", "C /file", "A /file/inner"]


def test_mount_points_of_every_container_are_none_of_its_changes(disk: Disk) -> None:
    for name in ("etc/hosts", "etc/resolv.conf"):
        disk.write(disk.upper, name, "")
    (disk.upper / "proc").mkdir()
    assert disk.changes() == []
    disk.write(disk.upper, "etc/own")
    assert disk.changes() == ["C /etc", "A /etc/own"]


def test_a_whiteout_of_nothing_is_no_change(disk: Disk) -> None:
    disk.hide(disk.upper, "never")
    assert disk.changes() == []


def test_as_a_layer_it_has_the_containers_ids_and_whiteouts(disk: Disk) -> None:
    disk.write(disk.low, "etc/gone")
    file = disk.write(disk.upper, "new/file")
    (disk.upper / "new" / "twin").hardlink_to(file)
    disk.hide(disk.upper, "etc/gone")
    os.setxattr(file, "user.colour", b"blue\xff")
    members = disk.tar()
    assert list(members) == ["etc", "etc/.wh.gone", "new", "new/file", "new/twin"]
    assert (members["new/file"].uid, members["etc/.wh.gone"].size) == (0, 0)
    assert members["new/twin"].linkname == "new/file"
    colour = members["new/file"].pax_headers["SCHILY.xattr.user.colour"]
    assert colour.encode("utf-8", "surrogateescape") == b"blue\xff"


def test_a_link_is_never_followed(disk: Disk) -> None:
    (disk.upper / "door").symlink_to("/etc")
    assert disk.changes() == ["A /door"]
    assert disk.tar()["door"].linkname == "/etc"


def test_a_size_counts_each_file_once(disk: Disk) -> None:
    file = disk.write(disk.upper, "file", "x" * 1000)
    (disk.upper / "twin").hardlink_to(file)
    assert size_of(disk.upper) == 1000
    assert size_of(disk.upper / "nothing") == 0
