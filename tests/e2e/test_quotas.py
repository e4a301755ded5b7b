"""Quotas of tenants: every way by which bytes come into the store is held to them."""

import hashlib
import io
import json
import secrets
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.tenant import Tenant

from labfleet_cli.memory import with_tenancy

MB = 1_000_000
SAYS = "quota of tenant eve exceeded"


@pytest.fixture(scope="module")
def eve(shared_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A tenant whose quota the tests set."""
    made = Tenant.create(shared_fleet, "eve", tmp_path_factory.mktemp("eve"))
    yield made
    made.remove()


@pytest.fixture
def fay(shared_fleet: Fleet, tmp_path: Path) -> Iterator[Tenant]:
    """One who has nothing yet."""
    made = Tenant.create(shared_fleet, "fay", tmp_path)
    yield made
    made.remove()


def limit(fleet: Fleet, stored_bytes: int, repositories: int, whose: str = "eve") -> None:
    """Set both, without the command line's start."""
    with_tenancy(fleet.plan, lambda tenancy: tenancy.limit(whose, stored_bytes, repositories))


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def saved(layer: bytes) -> bytes:
    """An image as `docker save` writes it."""
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "config": {},
         "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}
    ).encode()  # fmt: skip
    table = [{"Config": "config__json".replace("__", "."), "RepoTags": ["big:1"], "Layers": ["layer.tar"]}]  # fmt: skip
    return tar_of(config__json=config, layer__tar=layer, manifest__json=json.dumps(table).encode())


def test_every_way_into_the_store_is_held_to_the_quota(fleet: Fleet, eve: Tenant, tmp_path: Path) -> None:  # fmt: skip
    limit(fleet, 3 * MB, 0)
    base = f"http://{fleet.plan.registry}/v2"
    big = secrets.token_bytes(4 * MB)
    with httpx.Client(auth=("eve", eve.token)) as client:

        def denied(answer: httpx.Response) -> None:
            assert answer.status_code == 403
            error = answer.json()["errors"][0]
            assert error["code"] == "DENIED"
            assert SAYS in error["message"]
            assert "3 MB" in error["message"]

        uploads = f"{base}/lab/a/blobs/uploads/"
        denied(until_held(client, uploads, big))  # whole
        where = base.removesuffix("/v2") + client.post(uploads).headers["Location"]
        assert client.patch(where, content=big[: 2 * MB]).status_code == 202
        denied(client.patch(where, content=iter([big[2 * MB :]])))  # a chunk of unknown length
        assert client.get(where).status_code == 404  # nothing half-made stays
        assert client.head(f"{base}/lab/a/blobs/{digest_of(big)}").status_code == 404
        small = big[: 2 * MB]
        for name in ("a", "b"):  # one blob counts once
            answer = client.post(f"{base}/lab/{name}/blobs/uploads/",
                                 params={"digest": digest_of(small)}, content=small)  # fmt: skip
            assert answer.status_code == 201
        denied(client.post(uploads, params={"digest": digest_of(big[MB:])}, content=big[MB : 3 * MB]))  # fmt: skip

    layer = tar_of(big=big)
    assert SAYS in eve.docker("load", stdin=saved(layer), code=1).err
    assert SAYS in eve.docker("import", "-", "big:1", stdin=layer, code=1).err
    eve.docker("run", "--name", "maker", "busybox", "dd", "if=/dev/urandom", "of=/big",
               "bs=1000000", "count=4")  # fmt: skip
    assert SAYS in eve.docker("commit", "maker", "big:1", code=1).err
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM busybox\nCOPY big /big\n")
    (tmp_path / "context" / "big").write_bytes(big)
    built = eve.docker("build", "-t", "big:1", str(tmp_path / "context"), code=1)
    assert SAYS in built.err + built.out
    assert eve.docker("images", "-q", "big").out == ""
    limit(fleet, 20 * MB, 0)
    assert "Loaded image: big:1" in until_loaded(eve, saved(layer))
    eve.docker("rm", "maker")
    eve.docker("rmi", "big:1")


def until_held(client: httpx.Client, uploads: str, big: bytes) -> httpx.Response:
    """The store hears of the quota a moment after it is set: until then it takes what is sent."""

    def refused() -> httpx.Response | None:
        answer = client.post(uploads, params={"digest": digest_of(big)}, content=big)
        if answer.status_code == 201:
            client.delete(uploads.replace("uploads/", digest_of(big)))
            return None
        return answer

    found = until(refused, 5)
    assert isinstance(found, httpx.Response)
    return found


def until_loaded(tenant: Tenant, image: bytes) -> str:
    """The store hears of a larger quota a moment after the command."""
    return str(until(lambda: tenant.docker("load", stdin=image, code=None).out, 5))


def test_repositories_are_counted_and_shown(fleet: Fleet, eve: Tenant) -> None:
    fleet.labfleet("tenant", "quota", "eve", "--storage", "30MB", "--repositories", "2")
    eve.docker("tag", "busybox", "lab/one")
    eve.docker("tag", "busybox", "lab/two")
    eve.docker("tag", "busybox", "lab/two:more")
    refused = eve.docker("tag", "busybox", "lab/three", code=1).err
    assert SAYS in refused
    assert "may have 2 repositories" in refused
    row = next(line for line in fleet.labfleet("tenant", "ls").out.splitlines() if "eve" in line)
    assert "MB/30.0MB" in row
    assert "2/2" in row
    eve.docker("rmi", "lab/two", "lab/two:more")
    eve.docker("tag", "busybox", "lab/three")
    assert "exists" in fleet.labfleet("tenant", "create", "eve", code=1).out
    limit(fleet, 0, 0)
    until(lambda: eve.docker("tag", "busybox", "lab/four", code=None).code == 0, 5)
    assert "no size" in fleet.labfleet("tenant", "quota", "eve", "--storage", "much", code=1).out


def test_pushes_at_once_are_counted_one_after_the_other(fleet: Fleet, fay: Tenant) -> None:
    """Each would find room for one more repository before any of them is there."""
    limit(fleet, 0, 2, "fay")
    base = f"http://{fleet.plan.registry}/v2"
    config = b"{}"
    kind = "application/vnd.oci.image.manifest.v1+json"
    part = {"mediaType": "application/x", "digest": digest_of(config), "size": len(config)}
    body = json.dumps(
        {"schemaVersion": 2, "mediaType": kind, "config": part, "layers": []}
    ).encode()
    names = [f"lab/n{number}" for number in range(8)]
    with httpx.Client(auth=("fay", fay.token)) as client, ThreadPoolExecutor(len(names)) as threads:

        def upload(name: str) -> int:
            params = {"digest": digest_of(config)}
            answer = client.post(f"{base}/{name}/blobs/uploads/", params=params, content=config)
            return answer.status_code

        def put(name: str) -> int:
            where, headers = f"{base}/{name}/manifests/1", {"Content-Type": kind}
            return client.put(where, headers=headers, content=body).status_code

        assert list(threads.map(upload, names)) == [201] * 8
        assert sorted(threads.map(put, names)) == [201] * 2 + [403] * 6
