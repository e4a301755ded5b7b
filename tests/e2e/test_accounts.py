"""`docker login` with a token, and the registry by tenants."""

import gzip
import hashlib
import io
import json
import secrets
import shutil
import subprocess
import tarfile
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import Fleet
from tests.farm.tenant import Tenant


def test_login_and_logout(fleet: Fleet, tenants: tuple[Tenant, Tenant]) -> None:
    ann, _ = tenants
    store = fleet.plan.registry
    login = ("login", "--username", "ann", "--password-stdin", store)
    done = ann.docker(*login, stdin=ann.token.encode())
    assert "Login Succeeded" in done.out
    stored = json.loads((ann.directory / "config" / "config.json").read_text())
    assert store in stored["auths"]
    ann.docker("tag", "busybox", f"{store}/pushed/box:1")
    assert "digest: sha256:" in ann.docker("push", f"{store}/pushed/box:1").out
    assert "Digest: sha256:" in ann.docker("pull", f"{store}/pushed/box:1").out
    assert "unauthorized" in ann.docker(*login, stdin=b"wrong", code=1).err
    refused = ann.docker("login", "-u", "ann", "--password-stdin", "ghcr.io",
                         stdin=ann.token.encode(), code=1)  # fmt: skip
    assert "registry is" in refused.err
    ann.docker("logout", store)
    ann.docker("rmi", f"{store}/pushed/box:1")
    assert not json.loads((ann.directory / "config" / "config.json").read_text()).get("auths")


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo")
def test_skopeo_copies_by_tenant(
    fleet: Fleet, tenants: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    ann, bob = tenants
    store = f"docker://{fleet.plan.registry}"

    def skopeo(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            ["skopeo", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode == 0) is (code == 0), done.stderr
        return done.stdout + done.stderr

    mine, yours = f"ann:{ann.token}", f"bob:{bob.token}"
    layout = f"oci:{tmp_path}/layout:box"
    skopeo("copy", "--src-tls-verify=false", "--src-creds", mine, f"{store}/busybox", layout)
    skopeo("copy", "--dest-tls-verify=false", "--dest-creds", mine, layout, f"{store}/busybox:own")
    assert ann.docker("run", "--rm", "busybox:own", "echo", "mine").out == "mine"
    assert "No such image" in bob.docker("image", "inspect", "busybox:own", code=1).err
    tags = json.loads(
        skopeo("list-tags", "--tls-verify=false", "--creds", yours, f"{store}/busybox")
    )
    assert tags["Tags"] == ["latest"]
    assert "own" in skopeo("list-tags", "--tls-verify=false", "--creds", mine, f"{store}/busybox")
    for creds in (yours, "ann:wrong"):
        skopeo("inspect", "--tls-verify=false", "--creds", creds, f"{store}/busybox:own", code=1)
    refused = skopeo("inspect", "--tls-verify=false", "--no-creds", f"{store}/busybox", code=1)
    assert "authentication required" in refused
    ann.docker("rmi", "busybox:own")


def test_a_blob_is_not_given_away_by_its_digest(
    fleet: Fleet, tenants: tuple[Tenant, Tenant]
) -> None:
    ann, bob = tenants
    base = f"http://{fleet.plan.registry}/v2"
    data = secrets.token_bytes(10_000)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with httpx.Client(auth=("ann", ann.token)) as client:
        where = client.post(
            f"{base}/private/blobs/uploads/", params={"digest": digest}, content=data
        )
        assert where.status_code == 201
        assert where.headers["Location"] == f"/v2/private/blobs/{digest}"
        assert client.get(f"{base}/private/blobs/{digest}").content == data
    with httpx.Client(auth=("bob", bob.token)) as client:
        for name in ("private", "_ann/private", "ann/private", "busybox"):
            assert client.get(f"{base}/{name}/blobs/{digest}").status_code in (400, 404)
            mounted = client.post(
                f"{base}/mine/blobs/uploads/", params={"mount": digest, "from": name}
            )
            assert mounted.status_code in (202, 400)
            assert client.head(f"{base}/mine/blobs/{digest}").status_code == 404
        assert "private" not in client.get(f"{base}/_catalog").text
        assert client.put(f"{base}/busybox/manifests/latest", content=b"{}").status_code == 400
        shared = client.get(f"{base}/busybox/manifests/latest")
        layer = shared.json()["layers"][0]["digest"]
        assert client.delete(f"{base}/busybox/blobs/{layer}").status_code == 403
        assert client.delete(f"{base}/busybox/manifests/latest").status_code == 404
    with httpx.Client() as client:
        for path in ("/", "/_catalog", "/busybox/manifests/latest", f"/private/blobs/{digest}"):
            answer = client.get(base + path)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")


def test_a_layer_is_not_given_away_by_its_diff_id(
    fleet: Fleet, tenants: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    """An image that lies of what is in its blob does not run with the layer of another tenant."""
    ann, bob = tenants
    secret = secrets.token_hex(16)
    true, false = _tar(tmp_path / "true.tar", secret), _tar(tmp_path / "false.tar", "nothing")
    _push(fleet, ann, "lab/secret", true, true)
    _push(fleet, bob, "lab/thief", false, true)
    here = ("--rm", "--label", "labfleet.constraint=host==host1")
    busybox = ("-v", "tools:/tools", "busybox", "cp", "/bin/busybox", "/tools/busybox")
    reading = ("-v", "tools:/tools", "--entrypoint", "/tools/busybox")
    try:
        for each in tenants:
            each.docker("run", *here, *busybox)
        assert ann.docker("run", *here, *reading, "lab/secret", "cat", "/secret").out == secret
        stolen = bob.docker("run", *here, *reading, "lab/thief", "cat", "/secret", code=None)
        assert secret not in stolen.out + stolen.err
        assert "diff_id" in stolen.err
    finally:
        for each, name in ((ann, "lab/secret"), (bob, "lab/thief")):
            each.docker("rm", "-f", *each.docker("ps", "-aq").out.split(), code=None)
            each.docker("rmi", name)
            each.docker("volume", "rm", "tools")


def _tar(path: Path, secret: str) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("secret")
        member.size = len(secret)
        archive.addfile(member, io.BytesIO(secret.encode()))
    return path


def _push(fleet: Fleet, tenant: Tenant, name: str, sent: Path, said: Path) -> None:
    """Push an image whose blob is one tar and whose config says that it is another."""
    blob = gzip.compress(sent.read_bytes(), mtime=0)
    diff_id = f"sha256:{hashlib.sha256(said.read_bytes()).hexdigest()}"
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "config": {},
         "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    ).encode()  # fmt: skip
    kind = "application/vnd.oci.image."
    parts = []
    with httpx.Client(auth=(tenant.name, tenant.token)) as client:
        base = f"http://{fleet.plan.registry}/v2/{name}"
        for media, data in (("config.v1+json", config), ("layer.v1.tar+gzip", blob)):
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            client.post(f"{base}/blobs/uploads/", params={"digest": digest}, content=data)
            parts.append({"mediaType": kind + media, "digest": digest, "size": len(data)})
        manifest = {"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
                    "config": parts[0], "layers": parts[1:]}  # fmt: skip
        client.put(f"{base}/manifests/latest", json=manifest,
                   headers={"Content-Type": kind + "manifest.v1+json"}).raise_for_status()  # fmt: skip


def test_a_token_that_reads_cannot_push(fleet: Fleet, tenants: tuple[Tenant, Tenant]) -> None:
    create = ("token", "create", "--tenant", "ann", "--scopes", "read", "--expires", "5m")
    reader = fleet.labfleet(*create).out.strip()
    base = f"http://{fleet.plan.registry}/v2"
    with httpx.Client(auth=("ann", reader)) as client:
        assert client.get(f"{base}/busybox/manifests/latest").status_code == 200
        denied = client.post(f"{base}/mine/blobs/uploads/")
    assert denied.status_code == 403
    assert denied.json()["errors"][0]["code"] == "DENIED"
    assert tenants[0].token not in denied.text
