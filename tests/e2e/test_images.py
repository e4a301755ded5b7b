"""The image store with clients that we did not write."""

import hashlib
import json
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import LABFLEET, Fleet


def test_images_pull_inspect_tag_remove(fleet: Fleet) -> None:
    assert "busybox" in fleet.docker("images").out
    pulled = fleet.docker("pull", "busybox").out
    assert "Digest: sha256:" in pulled
    about = json.loads(fleet.docker("image", "inspect", "busybox").out)[0]
    assert about["RepoTags"] == ["busybox:latest"]
    fleet.docker("tag", "busybox", "course/tools:v1")
    assert fleet.docker("run", "--rm", "course/tools:v1", "echo", "same").out == "same"
    assert "Untagged" in fleet.docker("rmi", "course/tools:v1").out
    assert "No such image" in fleet.docker("image", "inspect", "course/tools:v1", code=1).err
    assert fleet.docker("run", "--rm", "busybox", "echo", "still").out == "still"
    assert "repository does not exist" in fleet.docker("pull", "nosuch", code=1).err


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo")
def test_skopeo_copies_out_and_in(fleet: Fleet, tmp_path: Path) -> None:
    store = fleet.plan.registry
    layout = f"oci:{tmp_path}/layout:busybox"
    _skopeo(fleet, "copy", "--src-tls-verify=false", f"docker://{store}/busybox:latest", layout)
    _skopeo(fleet, "copy", "--dest-tls-verify=false", layout, f"docker://{store}/copied/box:v2")
    _skopeo(fleet, "copy", "--dest-tls-verify=false", "--format", "v2s2", layout,
         f"docker://{store}/copied/schema2:v2")  # fmt: skip
    tags = json.loads(_skopeo(fleet, "list-tags", "--tls-verify=false",
                           f"docker://{store}/copied/box"))  # fmt: skip
    assert tags["Tags"] == ["v2"]
    for name in ("copied/box:v2", "copied/schema2:v2"):
        assert fleet.docker("run", "--rm", name, "echo", "ok").out == "ok"
    fleet.docker("rmi", "copied/schema2:v2")
    _skopeo(fleet, "delete", "--tls-verify=false", f"docker://{store}/copied/box:v2")
    assert "repository does not exist" in fleet.docker("run", "copied/box:v2", code=125).err


def test_an_upload_with_a_wrong_digest_is_refused(fleet: Fleet) -> None:
    with httpx.Client(base_url=fleet.plan.registry_url) as client:
        location = client.post("/v2/bad/blobs/uploads/").headers["Location"]
        wrong = "sha256:" + "0" * 64
        answer = client.put(location, params={"digest": wrong}, content=b"other bytes")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "DIGEST_INVALID"


def test_tag_history_push_remove(fleet: Fleet) -> None:
    fleet.docker("tag", "busybox", "shelf/tool:1")
    steps = fleet.docker(
        "history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}}", "shelf/tool:1"
    )
    assert steps.out.startswith("sha256:")
    pushed = fleet.docker("push", "shelf/tool:1").out
    assert "digest: sha256:" in pushed
    assert "does not exist locally" in fleet.docker("push", "nosuch:1", code=1).err
    assert "No such image" in fleet.docker("tag", "nosuch", "other", code=1).err
    fleet.docker("create", "--name", "user", "shelf/tool:1")
    assert "shelf/tool:1" in fleet.docker("rmi", "shelf/tool:1").out
    assert "is using" in fleet.docker("rmi", "busybox", code=1).err
    assert fleet.docker("start", "-a", "user").err == ""
    assert "No such image" in fleet.docker("rmi", "shelf/tool:1", code=1).err


def test_pull_and_run_by_digest(fleet: Fleet) -> None:
    about = json.loads(fleet.docker("image", "inspect", "busybox").out)[0]
    name = next(each for each in about["RepoDigests"] if "busybox@" in each)
    name = name.rpartition("/")[2]
    assert "Digest: sha256:" in fleet.docker("pull", name).out
    assert fleet.docker("run", "--rm", name, "echo", "pinned").out == "pinned"
    wrong = f"busybox@sha256:{'0' * 64}"
    assert "manifest unknown" in fleet.docker("pull", wrong, code=1).err


def _layer() -> tuple[bytes, str]:
    data = secrets.token_bytes(300_000)
    return data, f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_blob_comes_in_chunks_and_is_mounted_elsewhere(fleet: Fleet) -> None:
    data, digest = _layer()
    with httpx.Client(base_url=fleet.plan.registry_url) as client:
        begun = client.post("/v2/first/blobs/uploads/")
        assert begun.status_code == 202
        where = begun.headers["Location"]
        for start in range(0, len(data), 100_000):
            chunk = data[start : start + 100_000]
            span = f"{start}-{start + len(chunk) - 1}"
            sent = client.patch(where, content=chunk, headers={"Content-Range": span})
            assert (sent.status_code, sent.headers["Range"]) == (202, f"0-{start + len(chunk) - 1}")
        again = client.patch(where, content=b"x", headers={"Content-Range": "0-0"})
        assert again.status_code == 416
        assert client.put(where, params={"digest": digest}).status_code == 201
        assert client.get(f"/v2/first/blobs/{digest}").content == data
        part = client.get(f"/v2/first/blobs/{digest}", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])
        assert client.get(f"/v2/second/blobs/{digest}").status_code == 404
        mount = {"mount": digest, "from": "first"}
        assert client.post("/v2/second/blobs/uploads/", params=mount).status_code == 201
        assert client.get(f"/v2/second/blobs/{digest}").content == data
        nobody = {"mount": digest, "from": "nobody"}
        assert client.post("/v2/third/blobs/uploads/", params=nobody).status_code == 202


def test_a_manifest_whose_layers_are_not_there_is_refused(fleet: Fleet) -> None:
    _, digest = _layer()
    kind = "application/vnd.oci.image.manifest.v1+json"
    part = {"mediaType": "application/octet-stream", "digest": digest, "size": 3}
    body = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": part, "layers": [part]})
    url = f"{fleet.plan.registry_url}/v2/hollow/manifests/latest"
    answer = httpx.put(url, content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"
    assert "repository does not exist" in fleet.docker("pull", "hollow", code=1).err


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo")
def test_skopeo_pulls_by_digest_and_converts(fleet: Fleet, tmp_path: Path) -> None:
    source = f"docker://{fleet.plan.registry}/busybox"
    raw = _skopeo(fleet, "inspect", "--raw", "--tls-verify=false", source)
    digest = f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"
    _skopeo(fleet, "copy", "--src-tls-verify=false", f"{source}@{digest}", f"dir:{tmp_path}/dir")
    for number, kind in enumerate(("oci", "v2s2")):
        name = f"converted/kind{number}:latest"
        _skopeo(fleet, "copy", "--dest-tls-verify=false", "--format", kind, f"dir:{tmp_path}/dir",
             f"docker://{fleet.plan.registry}/{name}")  # fmt: skip
        about = json.loads(_skopeo(fleet, "inspect", "--raw", "--tls-verify=false",
                                f"docker://{fleet.plan.registry}/{name}"))  # fmt: skip
        wanted = (
            "vnd.docker.distribution.manifest.v2" if kind == "v2s2" else "vnd.oci.image.manifest"
        )
        assert wanted in about["mediaType"]
        assert fleet.docker("run", "--rm", name, "echo", kind).out == kind
        fleet.docker("rmi", name)


def _skopeo(fleet: Fleet, *words: str) -> str:
    login = f"operators:{fleet.plan.fleet_secret}"
    command = ["skopeo", *words]
    if words[0] == "copy":
        for side in ("src", "dest"):
            if f"--{side}-tls-verify=false" in words:
                command[2:2] = [f"--{side}-creds", login]
    else:
        command[2:2] = ["--creds", login]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_debian_from_this_machines_own_mirror(fleet: Fleet) -> None:
    """`labfleet image bootstrap debian`, and a container in which its tools work."""
    subprocess.run([LABFLEET, "image", "bootstrap", "debian", "--fleet", fleet.plan.name],
                   check=True, timeout=500)  # fmt: skip
    try:
        script = "cat /etc/debian_version && apt-get --version | head -1 && id nobody && ls -A /dev"
        out = fleet.docker("run", "--rm", "debian", "bash", "-c", script).out
        assert re.match(r"1[2-9]", out)
        assert "apt " in out
        assert "uid=65534(nobody)" in out
        assert "console" not in out.splitlines()
    finally:
        for tag in fleet.docker("images", "debian", "--format", "{{.Tag}}").out.split():
            fleet.docker("rmi", "-f", f"debian:{tag}")


@pytest.mark.parametrize("config", [b"nonsense", b"[]", b'{"rootfs":{"diff_ids":[]}}'])
def test_what_is_pushed_and_is_no_image_hurts_nobody(fleet: Fleet, config: bytes) -> None:
    """Whoever pushes may push anything: a config that cannot be read, or names other layers."""
    name = "oddity"
    with httpx.Client(base_url=f"{fleet.plan.registry_url}/v2/{name}") as store:
        for blob in (config, b"a layer"):
            digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
            sent = store.post("/blobs/uploads/", params={"digest": digest}, content=blob)
            assert sent.status_code == 201
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [_descriptor(b"a layer", "application/vnd.oci.image.layer.v1.tar")],
        }
        pushed = store.put("/manifests/1", json=manifest, headers={"Content-Type": kind})
        assert pushed.status_code == 201
        try:
            assert "busybox" in fleet.docker("images").out
            assert name not in fleet.docker("images").out
            assert "No such image" in fleet.docker("image", "inspect", f"{name}:1", code=1).err
            assert fleet.docker("run", "--rm", "busybox", "echo", "on").out == "on"
        finally:
            store.delete("/manifests/1")


def _descriptor(blob: bytes, kind: str) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(blob)}
