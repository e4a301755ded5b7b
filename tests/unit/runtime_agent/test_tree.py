"""Device nodes in archives: an image may carry them below /dev, nobody else anywhere."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from labfleet_chassis.tar_reading import open_tar
from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.adapters.tree import TreeWriter


def _write(root: Path, name: str, *, as_layer: bool) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        for member in (tarfile.TarInfo(name), tarfile.TarInfo("etc/after")):
            member.type = tarfile.CHRTYPE if member.name == name else tarfile.REGTYPE
            made.addfile(member)
    data.seek(0)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open_tar(data, 1 << 20) as archive:
            TreeWriter(fd, with_whiteouts=as_layer).write_all(archive)
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ["dev/console", "./dev/pts/0", "/dev/null"])
def test_nodes_below_dev_of_an_image_are_left_out(tmp_path: Path, name: str) -> None:
    _write(tmp_path, name, as_layer=True)
    assert (tmp_path / "etc" / "after").exists()
    assert not (tmp_path / "dev" / "console").exists()
    assert not (tmp_path / "dev" / "null").exists()


@pytest.mark.parametrize("name", ["sda", "etc/dev/null", "devil/x", "x/../dev/null"])
def test_a_node_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="archive"):
        _write(tmp_path, name, as_layer=True)


def test_a_node_that_a_user_copies_in_is_refused_everywhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="is a device"):
        _write(tmp_path, "dev/console", as_layer=False)
