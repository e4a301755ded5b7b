"""Bits of a fleet's images flip on the store's disk: operators hear of it; hosts, mirrors and pushes heal it."""

import asyncio
import hashlib
import io
import json
import secrets
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.memory import forget_all, recall, remember
from tests.farm.registries import archive_of, other_registry

from labfleet_cli import fleet as fleets
from labfleet_proto.buckets import layer_copy_key
from labfleet_proto.ids import Digest, HostId

needs_registry = pytest.mark.skipif(
    not all(shutil.which(each) for each in ("docker-registry", "skopeo")),
    reason="no docker-registry or skopeo",
)


def _flip(fleet: Fleet, digest: str) -> None:
    name = digest.removeprefix("sha256:")
    path = fleet.plan.state_dir / "images" / "blobs" / "sha256" / name[:2] / name
    with path.open("r+b") as file:
        file.seek(40)
        byte = file.read(1)
        file.seek(40)
        file.write(bytes([byte[0] ^ 1]))


def _blobs(fleet: Fleet, name: str) -> list[str]:
    """Config and layers of an image in the store."""
    path, _, tag = name.partition(":")
    found = httpx.get(
        f"http://{fleet.plan.registry}/v2/{path}/manifests/{tag or 'latest'}",
        auth=("operators", fleet.plan.fleet_secret),
    ).json()
    return [found["config"]["digest"], *(each["digest"] for each in found["layers"])]


@needs_registry
def test_a_flipped_bit_is_healed_from_the_mirror(fleet: Fleet, tmp_path: Path) -> None:
    name = f"mended{secrets.token_hex(3)}"
    with other_registry(tmp_path / "registry") as registry:
        archive = archive_of(tmp_path / "image.tar", [secrets.token_bytes(3_000_000)])
        registry.push(archive, f"library/{name}:latest")
        record = {"name": "mend", "url": registry.url, "registry": "docker.io", "position": 10}
        remember(fleet, "upstreams", "mend", record)
        try:
            fleet.docker("pull", name)
            config, layer = _blobs(fleet, name)
            before = fleet.docker("save", name).raw
            _flip(fleet, layer)
            _flip(fleet, config)
            done = fleet.labfleet("image", "scrub")
            assert "2 damaged, 2 healed" in done.out
            assert f"healed: {layer}" in done.out
            assert fleet.docker("save", name).raw == before
        finally:
            forget_all(fleet, "upstreams")
            fleet.docker("rmi", name, code=None)


@needs_registry
def test_a_flipped_bit_is_healed_from_a_host_that_keeps_the_layer(
    fleet: Fleet, tmp_path: Path
) -> None:
    name = f"kept{secrets.token_hex(3)}:1"
    archive = archive_of(tmp_path / "image.tar", [secrets.token_bytes(3_000_000)])
    loaded = fleet.docker("load", stdin=archive.read_bytes()).out.rpartition(" ")[2]
    fleet.docker("tag", loaded, name)
    try:
        layer = _blobs(fleet, name)[-1]
        before = fleet.docker("save", name).raw
        fleet.labfleet("image", "pre-pull", name, "--host", "host2")
        key = layer_copy_key(Digest(layer), HostId("host2"))
        until(lambda: (recall(fleet, "layer_copies", key) or {}).get("blob") == "whole")
        log = fleet.plan.state_dir / "log" / "image-store.log"
        began = log.stat().st_size
        _flip(fleet, layer)
        done = fleet.labfleet("image", "scrub")
        assert "1 damaged, 1 healed" in done.out
        assert f"healed: {layer}" in done.out
        told = [json.loads(line) for line in log.read_bytes()[began:].splitlines()]
        assert [each["source"] for each in told if each["event"] == "blob.brought"] == ["host"]
        assert "Image is up to date" in fleet.docker("pull", f"{fleet.plan.registry}/{name}").out
        copied = tmp_path / "copied"
        subprocess.run(
            [
                "skopeo", "copy", "--src-tls-verify=false", "--src-creds",
                f"operators:{fleet.plan.fleet_secret}", f"docker://{fleet.plan.registry}/{name}",
                f"dir:{copied}",
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        bytes_of_layer = (copied / layer.removeprefix("sha256:")).read_bytes()
        assert f"sha256:{hashlib.sha256(bytes_of_layer).hexdigest()}" == layer
        assert fleet.docker("save", name).raw == before
        assert _metric(fleet, 'labfleet_registry_brought_blobs_total{source="host"}') >= 1
        fleet.labfleet("fsck")
    finally:
        fleet.docker("rmi", "-f", loaded)


def _metric(fleet: Fleet, name: str) -> float:
    """A metric of the image store."""
    pongs = asyncio.run(fleets.pings(fleet.plan))
    (port,) = (pong.metrics_port for pong in pongs if pong.service == "image-store")
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_flipped_bit_of_ones_own_image_is_told_and_a_load_heals_it(fleet: Fleet) -> None:
    name = f"own{secrets.token_hex(3)}:1"
    fleet.docker("create", "--name", "maker", "busybox", "true")
    fleet.docker("cp", "-", "maker:/", stdin=_tar())
    fleet.docker("commit", "maker", name)
    saved = fleet.docker("save", name).raw
    layer = _blobs(fleet, name)[-1]
    began = str(time.time())
    _flip(fleet, layer)
    done = fleet.labfleet("image", "scrub", code=1)
    assert "1 damaged, 0 healed" in done.out
    findings = fleet.labfleet("fsck", code=1).out
    assert f"blob {layer} of" in " ".join(findings.split())
    assert fleet.docker("save", name, code=None).code != 0
    assert fleet.docker("load", stdin=saved).out == f"Loaded image: {name}"
    fleet.labfleet("image", "scrub")
    told = fleet.docker(
        "events", "--since", began, "--until", str(time.time()), "--filter", "type=image",
        "--format", "{{.Action}} {{.Actor.ID}}",
    ).out.splitlines()  # fmt: skip
    assert f"damage {layer}" in told
    assert f"heal {layer}" in told
    assert fleet.docker("run", "--rm", name, "cat", "/mark").out == "here"
    fleet.labfleet("fsck")
    fleet.docker("rm", "maker")
    fleet.docker("rmi", name)


def _tar() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        entry = tarfile.TarInfo("mark")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"here"))
        noise = tarfile.TarInfo("noise")
        noise.size = 5000
        tar.addfile(noise, io.BytesIO(secrets.token_bytes(5000)))
    return held.getvalue()
