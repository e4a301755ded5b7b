"""A disk is full, of a host or of the image store: a sentence, nothing half-made, and later all works.

The disks are small file systems in memory, whose size is cut down to what is in use.
"""

import contextlib
import io
import json
import os
import secrets
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import Fleet, running_fleet, until, until_clean
from tests.farm.traces import traces, until_traceless

from labfleet_cli.oci_image import ImagePlan, push

SUFFIX = "-full"
STATE = Path("/var/lib") / f"lftest-{os.getpid()}{SUFFIX}"
HOST_DISK = STATE / "hosts" / "host1"
STORE_DISK = STATE / "images"
SIZE = 3 << 30
ON_HOST1 = ("--label", "labfleet.constraint=host==host1")
COUNT = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done"


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hosts; the first one's disk and the image store's can be filled."""
    for disk in (HOST_DISK, STORE_DISK):
        disk.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "lftest", disk], check=True
        )
    with running_fleet(tmp_path_factory.mktemp("docker"), hosts=2, suffix=SUFFIX) as fleet:
        fleet.docker("run", "--rm", *ON_HOST1, "busybox", "true")  # its layers are there
        yield fleet


@pytest.fixture
def fleet(cramped: Fleet) -> Iterator[Fleet]:
    yield cramped
    cramped.clean()
    until_clean(cramped)
    until_traceless(cramped)


@contextlib.contextmanager
def _left(disk: Path, free_bytes: int = 0) -> Iterator[None]:
    """Leave so much room on a disk, until the end of the block."""
    there = os.statvfs(disk)
    used = (there.f_blocks - there.f_bfree) * there.f_frsize
    _resize(disk, used + free_bytes)
    try:
        yield
    finally:
        _resize(disk, SIZE)


def _resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def _fresh_image(fleet: Fleet, tmp_path: Path, name: str) -> None:
    """An image whose layer no host has."""
    tar = tmp_path / "layer.tar"
    with tarfile.open(tar, "w") as archive:
        member = tarfile.TarInfo("fresh")
        data = secrets.token_bytes(1000)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    plan = ImagePlan(name, ("latest",), ("/fresh",), "2026-01-01T00:00:00Z", "test")
    push(plan, tar, fleet.plan.registry_url, lambda _text: None)


def test_a_full_host_is_not_chosen_and_says_why(fleet: Fleet) -> None:
    with _left(HOST_DISK):
        for number in range(3):
            fleet.docker("run", "-d", "--name", f"n{number}", "busybox", "sleep", "60")
            assert fleet.host_of(f"n{number}") == "host2"
        done = fleet.docker("run", "-d", *ON_HOST1, "busybox", "sleep", "60", code=125)
        assert "host1 said no: it lacks disk space" in done.err
        assert len(fleet.docker("ps", "-aq").out.splitlines()) == 3
        assert not [each for each in traces(fleet) if "host1" in each]
    fleet.docker("run", "--rm", *ON_HOST1, "busybox", "true")


def test_a_start_on_a_full_host_fails_with_its_reason_and_works_later(fleet: Fleet) -> None:
    fleet.docker("create", "--name", "late", *ON_HOST1, "busybox", "sleep", "60")
    with _left(HOST_DISK):
        done = fleet.docker("start", "late", code=1)
        assert "No space left on device" in done.err or "disk" in done.err
        assert not fleet.inspect("late")["State"]["Running"]
        until(lambda: not [each for each in traces(fleet) if not each.startswith("files ")])
        members = json.loads(fleet.docker("network", "inspect", "bridge").out)[0]["Containers"]
        assert members == {}
    fleet.docker("start", "late")
    assert fleet.docker("exec", "late", "echo", "here").out == "here"


def test_whoever_filled_the_disk_can_be_looked_at_stopped_and_removed(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "other", *ON_HOST1, "busybox", "sh", "-c", COUNT)
    fleet.docker("run", "-d", "--name", "hog", *ON_HOST1, "busybox", "sh", "-c",
                 "while [ ! -e /go ]; do sleep 0.05; done; cat /dev/zero > /big; sleep 600")  # fmt: skip
    pid = fleet.inspect("hog")["State"]["Pid"]
    with _left(HOST_DISK, 20 << 20):
        Path(f"/proc/{pid}/root/go").touch()
        until(lambda: os.statvfs(HOST_DISK).f_bavail == 0)
        assert fleet.docker("exec", "other", "echo", "here").out == "here"
        fleet.docker("stop", "-t", "0", "other")
        assert fleet.inspect("other")["State"]["ExitCode"] == 137
        fleet.docker("rm", "other")
        fleet.docker("rm", "-f", "hog")
        assert fleet.docker("ps", "-aq").out == ""
        until_traceless(fleet)


def test_a_layer_that_does_not_fit_is_not_fetched(fleet: Fleet, tmp_path: Path) -> None:
    _fresh_image(fleet, tmp_path, "wide")
    with _left(HOST_DISK, 600 << 20):
        done = fleet.docker("run", "--rm", *ON_HOST1, "wide", code=125)
        assert "fetch layer sha256:" in done.err
        assert "MiB free" in done.err
        until(lambda: fleet.docker("ps", "-aq").out == "")
        until_traceless(fleet)
        fleet.docker("create", "--name", "cold", *ON_HOST1, "wide")
        done = fleet.docker("cp", "cold:/fresh", "-", code=1)
        assert "MiB free" in done.err
    assert fleet.docker("cp", "cold:/fresh", "-").raw


def _uploads() -> list[Path]:
    return list((STORE_DISK / "uploads").iterdir())


def test_a_push_to_a_full_store_is_refused_and_keeps_nothing(fleet: Fleet, tmp_path: Path) -> None:
    blobs = {path.name for path in (STORE_DISK / "blobs").rglob("*")}
    with _left(STORE_DISK):
        answer = _send(fleet, "POST", "/v2/late/blobs/uploads/")
        assert answer.status_code == 507
        assert "disk is full" in answer.json()["errors"][0]["message"]
        with pytest.raises(httpx.HTTPStatusError, match="507"):
            _fresh_image(fleet, tmp_path, "late")
        assert "repository does not exist" in fleet.docker("run", "late", code=125).err
        assert "busybox" in fleet.docker("images").out
        fleet.docker("run", "--rm", "busybox", "true")
    assert _uploads() == []
    assert {path.name for path in (STORE_DISK / "blobs").rglob("*")} == blobs
    _fresh_image(fleet, tmp_path, "late")
    fleet.docker("image", "inspect", "late")


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_store_that_fills_up_during_an_upload_keeps_nothing(fleet: Fleet, method: str) -> None:
    location = _send(fleet, "POST", "/v2/half/blobs/uploads/").headers["Location"]
    query = f"?digest=sha256:{'0' * 64}" if method == "PUT" else ""
    with _left(STORE_DISK, 1 << 20):
        answer = _send(fleet, method, location + query, b"x" * (8 << 20))
        assert answer.status_code == 507
        assert "No space left on device" in answer.json()["errors"][0]["message"]
        assert _uploads() == []
    assert _send(fleet, "GET", location).status_code == 404


def _send(fleet: Fleet, method: str, path: str, data: bytes = b"") -> httpx.Response:
    return httpx.request(method, f"{fleet.plan.registry_url}{path}", content=data, timeout=30)
