"""The files of containers: diff, export, sizes, cp."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until


def _diff(fleet: Fleet, name: str) -> set[str]:
    return set(fleet.docker("diff", name).out.splitlines())


def test_diff_of_a_running_and_of_a_stopped_container(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "box", "busybox", "sh", "-c",
                 "echo new > /made; mkdir -p /dir/sub; echo x > /dir/sub/f; rm /bin/true; "
                 "echo more >> /etc/passwd; chmod 711 /root; ln -s made /link; sleep 600")  # fmt: skip
    wanted = {
        "A /made", "A /dir", "A /dir/sub", "A /dir/sub/f", "C /bin", "D /bin/true", "C /etc",
        "C /etc/passwd", "C /root", "A /link",
    }  # fmt: skip
    until(lambda: "A /link" in _diff(fleet, "box"))
    assert _diff(fleet, "box") == wanted
    fleet.docker("kill", "box")
    assert _diff(fleet, "box") == wanted


def test_diff_of_a_directory_that_was_made_anew(fleet: Fleet) -> None:
    """Overlayfs hides the old one by a mark; docker names what went away."""
    fleet.docker("run", "--name", "box", "busybox", "sh", "-c",
                 "ls /usr/sbin /usr /etc; rm -r /etc; mkdir /etc; echo y > /etc/y")  # fmt: skip
    lines = _diff(fleet, "box")
    assert {"C /etc", "D /etc/passwd", "A /etc/y"} <= lines
    assert not any(line.startswith("D /etc/hosts") for line in lines)


def test_a_container_that_never_ran_has_changed_nothing(fleet: Fleet) -> None:
    fleet.docker("create", "--name", "box", "busybox")
    assert _diff(fleet, "box") == set()
    assert "No such container" in fleet.docker("diff", "nobody", code=1).err


@pytest.mark.parametrize("running", [True, False])
def test_export_is_the_whole_root_without_volumes(fleet: Fleet, *, running: bool) -> None:
    fleet.docker("run", "-d", "--name", "box", "-v", "/vol", "busybox", "sh", "-c",
                 "echo in > /vol/hidden; echo out > /shown; chown 7:8 /shown; rm /bin/true; sleep 600")  # fmt: skip
    until(lambda: "D /bin/true" in _diff(fleet, "box"))
    if not running:
        fleet.docker("kill", "box")
    data = fleet.docker("export", "box").raw
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {each.name: each for each in archive}
        assert (members["shown"].uid, members["shown"].gid) == (7, 8)
        shown = archive.extractfile("shown")
        assert shown is not None
        assert shown.read() == b"out\n"
    assert members["vol"].isdir()
    assert "vol/hidden" not in members
    assert "bin/true" not in members
    assert "bin/sh" in members
    assert not any(name.startswith((".", "/")) for name in members)


def test_cp_reaches_volumes_of_a_container_that_does_not_run(fleet: Fleet, tmp_path: Path) -> None:
    fleet.docker("run", "--name", "box", "-v", "/vol", "busybox", "sh", "-c", "echo in > /vol/one")
    (tmp_path / "two").write_text("more")
    fleet.docker("cp", str(tmp_path / "two"), "box:/vol/two")
    fleet.docker("cp", "box:/vol", str(tmp_path / "back"))
    found = {path.name: path.read_text() for path in (tmp_path / "back").iterdir()}
    assert found == {"one": "in\n", "two": "more"}


def test_sizes_are_measured_when_asked_for(fleet: Fleet) -> None:
    fleet.docker("run", "--name", "box", "busybox", "sh", "-c",
                 "dd if=/dev/zero of=/big bs=1k count=300; ln /big /twin")  # fmt: skip
    document = json.loads(fleet.docker("inspect", "-s", "box").out)[0]
    assert document["SizeRw"] == 300 * 1024
    assert document["SizeRootFs"] > document["SizeRw"] + 500_000
    shown = fleet.docker("ps", "-a", "-s", "--format", "{{.Size}}").out
    assert shown.startswith("307kB (virtual ")
    assert "SizeRw" not in fleet.inspect("box")
