"""`docker cp`: trees as they are, into and out of any container, and how it says no."""

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from tests.farm.fleet import Fleet, until
from tests.farm.raw_http import asked

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw, effective, as revision 2 of the attribute."""


def _box(fleet: Fleet, *words: str, state: str = "running") -> None:
    fleet.docker("create", "--name", "box", *(words or ("busybox", "sleep", "600")))
    if state != "created":
        fleet.docker("start", "box")
    if state == "stopped":
        fleet.docker("kill", "box")
        fleet.docker("wait", "box")


def _tree(top: Path) -> Path:
    """Links of both kinds, modes, times, a capability, odd names; docker's client sends no other attributes."""
    tree = top / "tree"
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "file").write_bytes(os.urandom(100_000))
    (tree / "twin").hardlink_to(tree / "file")
    (tree / "link").symlink_to("sub/deep")
    (tree / "dangling").symlink_to("/no/where")
    (tree / "sub" / "ü \n\udcff").write_text("odd")
    (tree / "sub" / "empty").touch()
    (tree / "sub" / "tool").write_text("x")
    (tree / "sub" / "tool").chmod(0o6755)
    os.setxattr(tree / "sub" / "tool", "security.capability", CAPABILITY)
    (tree / "sub" / "deep").chmod(0o1730)
    os.chown(tree / "sub" / "empty", 12, 34)
    for number, path in enumerate(sorted(tree.rglob("*")), 1):
        os.utime(path, ns=(number, 1_600_000_000_123_456_789 + number), follow_symlinks=False)
    return tree


def _facts(tree: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for path in sorted(tree.rglob("*")):
        there, name = path.lstat(), str(path.relative_to(tree))
        content: object = path.readlink() if path.is_symlink() else None
        attributes = None
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            attributes = {key: os.getxattr(path, key) for key in os.listxattr(path)}
        twin = inodes.setdefault(there.st_ino, name)
        mtime = int(there.st_mtime)  # docker's client sends whole seconds
        found[name] = (
            oct(there.st_mode),
            there.st_uid,
            there.st_gid,
            content,
            twin,
            attributes,
            mtime,
        )
    return found


def _put(fleet: Fleet, path: str, data: bytes, more: str = "") -> tuple[int, object]:
    target = f"/containers/box/archive?path={path}{more}"
    headers = {"Content-Type": "application/x-tar"}
    with asked(fleet.plan.socket, "PUT", target, data, headers) as answer:
        return answer.status, answer.body()


def _tar(**members: str | None) -> bytes:
    """Files, or directories where there is no text."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.uid, member.gid = 41, 42
            if text is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.size = len(text or "")
            archive.addfile(member, io.BytesIO((text or "").encode()))
    return output.getvalue()


@pytest.mark.parametrize("state", ["running", "stopped", "created"])
def test_a_tree_goes_in_and_comes_back_as_it_was(fleet: Fleet, tmp_path: Path, state: str) -> None:
    tree = _tree(tmp_path)
    _box(fleet, state=state)
    fleet.docker("cp", "-a", str(tree), "box:/tmp/tree")
    packed = fleet.docker("cp", "box:/tmp/tree", "-").raw
    (tmp_path / "back").mkdir()
    subprocess.run(
        ["tar", "-x", "--xattrs", "--xattrs-include=*", "-p", "--same-owner", "-C", str(tmp_path / "back")],
        input=packed, check=True,
    )  # fmt: skip
    assert _facts(tmp_path / "back" / "tree") == _facts(tree)


def test_from_one_container_into_another(fleet: Fleet, tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    for name, host in (("one", "host1"), ("two", "host2")):
        fleet.docker("run", "-d", "--name", name, "--label", f"labfleet.constraint=host=={host}",
                     "busybox", "sleep", "600")  # fmt: skip
    fleet.docker("cp", str(tree), "one:/tree")
    with fleet.start("cp", "one:/tree", "-") as reading:
        done = subprocess.run(["docker", "cp", "-", "two:/"], stdin=reading.stdout, env=fleet.env,
                              check=False)  # fmt: skip
    assert done.returncode == 0
    sums = [fleet.docker("exec", name, "md5sum", "/tree/twin").out for name in ("one", "two")]
    assert sums[0] == sums[1]


def test_links_are_copied_or_followed(fleet: Fleet, tmp_path: Path) -> None:
    _box(fleet, "busybox", "sh", "-c", "mkdir /d; echo deep > /d/file; ln -s d /one; ln -s /one/file /two; "
         "ln -s two /three; ln -s ../../../../etc/passwd /out; touch /ready; sleep 600")  # fmt: skip
    until(lambda: fleet.docker("exec", "box", "ls", "/ready", code=None).code == 0)
    fleet.docker("cp", "box:/three", str(tmp_path / "link"))
    assert str((tmp_path / "link").readlink()) == "two"
    fleet.docker("cp", "-L", "box:/three", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "deep\n"
    fleet.docker("cp", "box:/one/.", str(tmp_path / "inner"))
    assert (tmp_path / "inner" / "file").read_text() == "deep\n"
    fleet.docker("cp", "box:/one/", str(tmp_path / "named"))
    assert (tmp_path / "named" / "file").read_text() == "deep\n"
    fleet.docker("cp", "-L", "box:/out", str(tmp_path / "passwd"))
    assert (tmp_path / "passwd").read_text().startswith("root:")
    assert (tmp_path / "passwd").read_text() != Path("/etc/passwd").read_text()


def test_volumes_are_reached_also_before_the_first_start(fleet: Fleet, tmp_path: Path) -> None:
    _box(
        fleet,
        "-v",
        "data:/data",
        "-v",
        "fixed:/fixed:ro",
        "busybox",
        "cat",
        "/data/file",
        state="created",
    )
    (tmp_path / "file").write_text("kept\n")
    fleet.docker("cp", str(tmp_path / "file"), "box:/data/file")
    assert fleet.docker("run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/file").out == "kept"
    assert fleet.docker("start", "-a", "box").out == "kept"
    refused = fleet.docker("cp", str(tmp_path / "file"), "box:/fixed/file", code=1).err
    assert "mounted volume is marked read-only" in refused


def test_whose_files_they_become(fleet: Fleet) -> None:
    """As dockerd: the archive's ids, unless copyUIDGID is asked of a container with a user."""
    _box(fleet, "-u", "7:8", "busybox", "sleep", "600")
    assert _put(fleet, "/tmp", _tar(plain="x"))[0] == 200
    assert _put(fleet, "/tmp", _tar(users="x"), "&copyUIDGID=1")[0] == 200
    shown = fleet.docker("exec", "box", "stat", "-c", "%u:%g", "/tmp/plain", "/tmp/users").out
    assert shown.split() == ["41:42", "7:8"]


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_compressed_archives_are_taken(fleet: Fleet, pack: Callable[[bytes], bytes]) -> None:
    _box(fleet)
    assert _put(fleet, "/tmp", pack(_tar(packed="inside\n"))) == (200, None)
    assert fleet.docker("exec", "box", "cat", "/tmp/packed").out == "inside"
    status, said = _put(fleet, "/tmp", pack(_tar(packed="y" * 100_000))[:-20])
    assert status == 400, said


def test_how_it_says_no(fleet: Fleet, tmp_path: Path) -> None:
    _box(fleet)
    small = _tar(a="x")
    missing = {"message": "Could not find the file /no/where in container box"}
    for method in ("GET", "PUT"):
        with asked(
            fleet.plan.socket, method, "/containers/box/archive?path=/no/where", small
        ) as answer:
            assert (answer.status, answer.body()) == (404, missing)
    with asked(fleet.plan.socket, "HEAD", "/containers/box/archive?path=/no/where") as answer:
        assert answer.status == 404
    with asked(fleet.plan.socket, "GET", "/containers/box/archive") as answer:
        assert answer.status == 400
    assert _put(fleet, "/etc/passwd", small) == (
        400, {"message": "extraction point is not a directory"},
    )  # fmt: skip
    with asked(fleet.plan.socket, "GET", "/containers/box/archive?path=/etc/passwd/") as answer:
        assert answer.status == 400
    assert _put(fleet, "/", _tar(etc="file"), "&noOverwriteDirNonDir=1")[0] == 400
    assert _put(fleet, "/etc", _tar(passwd=None), "&noOverwriteDirNonDir=1")[0] == 400
    assert _put(fleet, "/tmp", b"no tar at all" * 100)[0] == 400
    fleet.docker("rm", "-f", "box")
    _box(fleet, "--read-only", "--tmpfs", "/run", "busybox", "sleep", "600")
    assert _put(fleet, "/etc", small) == (400, {"message": "container rootfs is marked read-only"})
    (tmp_path / "f").write_text("x")
    assert (
        "is marked read-only" in fleet.docker("cp", str(tmp_path / "f"), "box:/etc/f", code=1).err
    )


def test_a_path_is_described(fleet: Fleet) -> None:
    _box(fleet, "busybox", "sh", "-c", "ln -s bin /b; touch /ready; sleep 600")
    until(lambda: fleet.docker("exec", "box", "ls", "/ready", code=None).code == 0)

    def about(path: str) -> dict:
        with asked(fleet.plan.socket, "HEAD", f"/containers/box/archive?path={path}") as answer:
            assert answer.status == 200
            return json.loads(base64.b64decode(answer.headers["x-docker-container-path-stat"]))

    assert about("/bin")["mode"] >> 31 == 1
    link = about("/b")
    assert (link["name"], link["linkTarget"], link["mode"] >> 27 & 1) == ("b", "/bin", 1)
    assert (about("/b/")["name"], about("/b/")["linkTarget"]) == ("b", "")
    assert about("/")["name"] == "/"


def _resident_kb(fleet: Fleet, name: str) -> int:
    text = Path(f"/proc/{fleet.service_pid(name)}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


@pytest.mark.long
def test_a_gigabyte_there_and_back(fleet: Fleet, tmp_path: Path) -> None:
    """At a disk's pace, and the services stay small."""
    block = os.urandom(1 << 20)
    with (tmp_path / "big").open("wb") as file:
        for number in range(1024):
            file.write(block[number:] + block[:number])
    _box(fleet, "--label", "labfleet.constraint=host==host1", "busybox", "sleep", "600")
    names = ("api", "runtime-agent-host1")
    before = {name: _resident_kb(fleet, name) for name in names}
    rates = []
    for words in ((str(tmp_path / "big"), "box:/big"), ("box:/big", str(tmp_path / "back"))):
        began_s = time.monotonic()
        fleet.docker("cp", *words, timeout_s=200)
        rates.append(1024 / (time.monotonic() - began_s))
        assert all(_resident_kb(fleet, name) < before[name] + 60_000 for name in names)
    sums = []
    for name in ("big", "back"):
        with (tmp_path / name).open("rb") as file:
            sums.append(hashlib.file_digest(file, "sha256").digest())
        (tmp_path / name).unlink()
    assert sums[0] == sums[1]
    assert min(rates) > 20, f"MiB/s in and out: {rates}"
