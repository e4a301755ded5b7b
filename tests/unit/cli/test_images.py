"""Images made here: the same input gives the same image."""

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from labfleet_cli import bootstrap
from labfleet_cli.bootstrap import BootstrapError
from labfleet_cli.oci_image import ImagePlan, compress, config_of

APPLETS = "bin/busybox bin/sh bin/ls usr/bin/env usr/sbin/httpd linuxrc opt/odd"
PLAN = ImagePlan("web", ("latest",), ("sh",), "2024-01-01T00:00:00Z", "test")


@pytest.fixture
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that lists applets as busybox does."""
    binary = tmp_path / "busybox"
    binary.write_text(f"#!/bin/sh\nfor each in {APPLETS}; do echo $each; done\n")
    binary.chmod(0o755)
    os.utime(binary, (1_700_000_000, 1_700_000_000))
    monkeypatch.setattr(bootstrap, "_BUSYBOX", (tmp_path / "nosuch", binary))
    return binary


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.usefixtures("busybox")
def test_busybox_built_twice_is_the_same_image(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        tar = tmp_path / name
        plan = bootstrap._busybox(tar)
        digest, diff_id, size = compress(tar, tmp_path / f"{name}.gz")
        made.append((digest, diff_id, size, sha256(config_of(plan, diff_id))))
    assert made[0] == made[1]


def test_busybox_has_a_link_for_each_applet(busybox: Path, tmp_path: Path) -> None:
    bootstrap._busybox(tmp_path / "tar")
    with tarfile.open(tmp_path / "tar") as archive:
        members = {member.name: member for member in archive}
        program = archive.extractfile("bin/busybox")
        assert program is not None
        assert program.read() == busybox.read_bytes()
    links = {name: each.linkname for name, each in members.items() if each.issym()}
    assert links == dict.fromkeys(
        ["bin/sh", "bin/ls", "usr/bin/env", "usr/sbin/httpd"], "/bin/busybox"
    )
    assert members["tmp"].mode == 0o1777
    assert members["root"].mode == 0o700
    assert all((each.uid, each.gid, each.mtime) == (0, 0, 0) for each in members.values())


@pytest.mark.usefixtures("busybox")
def test_every_member_comes_after_its_directory(tmp_path: Path) -> None:
    bootstrap._busybox(tmp_path / "tar")
    seen = {""}
    with tarfile.open(tmp_path / "tar") as archive:
        for member in archive:
            assert member.name.rpartition("/")[0] in seen, member.name
            seen.add(member.name)


@pytest.mark.usefixtures("busybox")
def test_busybox_is_dated_by_its_program(tmp_path: Path) -> None:
    plan = bootstrap._busybox(tmp_path / "tar")
    assert plan.created == "2023-11-14T22:13:20Z"
    assert (plan.repository, plan.command) == ("busybox", ("sh",))


def test_without_busybox_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_BUSYBOX", (tmp_path / "nosuch",))
    with pytest.raises(BootstrapError, match="busybox-static"):
        bootstrap._busybox(tmp_path / "tar")


def test_a_layer_is_named_by_both_of_its_digests(tmp_path: Path) -> None:
    tar = tmp_path / "tar"
    tar.write_bytes(b"bytes" * 100_000)
    digest, diff_id, size = compress(tar, tmp_path / "gz")
    packed = (tmp_path / "gz").read_bytes()
    assert (digest, size) == (sha256(packed), len(packed))
    assert diff_id == sha256(tar.read_bytes())
    assert gzip.decompress(packed) == tar.read_bytes()


def test_the_config_is_what_the_image_specification_asks_for() -> None:
    config = json.loads(config_of(PLAN, "sha256:" + "d" * 64))
    assert config["rootfs"] == {"type": "layers", "diff_ids": ["sha256:" + "d" * 64]}
    assert (config["os"], config["created"]) == ("linux", PLAN.created)
    assert config["config"]["Cmd"] == ["sh"]
    assert config["config"]["Env"][0].startswith("PATH=")
    assert len(config["history"]) == 1
