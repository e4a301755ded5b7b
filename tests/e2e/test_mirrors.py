"""Images of other registries, fetched through mirrors: real registries of Debian's package."""

import base64
import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.memory import forget_all, recall, remember
from tests.farm.registries import BrokenWay, OtherRegistry, archive_of, other_registry
from tests.farm.tenant import Tenant

pytestmark = pytest.mark.skipif(
    not all(shutil.which(each) for each in ("docker-registry", "htpasswd", "skopeo")),
    reason="no docker-registry, htpasswd or skopeo",
)

PASSWORD = "pass-word 1"  # noqa: S105 - of a registry of this test


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherRegistry]:
    """A registry that asks nobody."""
    with other_registry(tmp_path_factory.mktemp("plain") / "registry") as made:
        yield made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherRegistry]:
    """A registry that wants a password."""
    folder = tmp_path_factory.mktemp("guarded") / "registry"
    with other_registry(folder, "reader", PASSWORD) as made:
        yield made


@pytest.fixture
def mirrored(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet, without mirrors again after the test."""
    yield fleet
    forget_all(fleet, "upstreams")


def _image(folder: Path, sizes: list[int]) -> Path:
    return archive_of(folder / "image.tar", [secrets.token_bytes(size) for size in sizes])


def _add(fleet: Fleet, name: str, url: str, registry: str = "docker.io", **more: object) -> None:
    """What `labfleet mirror add` does, and quicker."""
    record = {"name": name, "url": url, "registry": registry, "position": 10, **more}
    remember(fleet, "upstreams", name, record)


def _lines(fleet: Fleet, name: str, **query: str) -> list[dict]:
    """What the engine says of a pull, line by line."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(fleet.plan.socket))) as client:
        answer = client.post(
            "http://docker/v1.43/images/create", params={"fromImage": name, **query}, timeout=60
        )
        assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_pull_shows_dockers_progress_and_run_pulls(
    mirrored: Fleet, plain: OtherRegistry, tmp_path: Path
) -> None:
    name = f"fresh{secrets.token_hex(3)}"
    plain.push(_image(tmp_path, [300_000, 6_000_000]), f"library/{name}:latest")
    mirrored.labfleet("mirror", "add", plain.url)
    lines = _lines(mirrored, name, tag="latest")
    assert lines[0] == {"status": f"Pulling from library/{name}", "id": "latest"}
    said = [line["status"] for line in lines]
    assert said.count("Pulling fs layer") == 2
    assert said.count("Pull complete") == 2
    bars = [line for line in lines if line["status"] == "Downloading"]
    assert bars
    assert all(set(line["progressDetail"]) == {"current", "total"} for line in bars)
    assert said[-1] == f"Status: Downloaded newer image for {name}:latest"
    digest = said[-2].removeprefix("Digest: ")
    about = json.loads(mirrored.docker("image", "inspect", name).out)[0]
    assert about["RepoDigests"] == [f"{name}@{digest}"]
    for wanted, words in (
        (f"{name}:9", f"manifest for {name}:9 not found: manifest unknown"),
        (f"{name}never", "repository does not exist or may require 'docker login'"),
    ):
        assert words in mirrored.docker("pull", wanted, code=1).err
    again = mirrored.docker("pull", name).out
    assert "Already exists" in again
    assert "up to date" in again
    mirrored.docker("rmi", name)
    # create, 404, pull, create: the command line does it by itself
    done = mirrored.docker("run", "--rm", name, code=None)
    assert f"Unable to find image '{name}:latest' locally" in done.err
    assert f"Status: Downloaded newer image for {name}:latest" in done.err
    assert "format error" in done.err
    mirrored.docker("rmi", "-f", name)


def test_a_mirror_that_dies_in_mid_blob_is_followed_by_the_next(
    mirrored: Fleet, plain: OtherRegistry, guarded: OtherRegistry, tmp_path: Path
) -> None:
    name = f"lab/split{secrets.token_hex(3)}"
    image = _image(tmp_path, [4_000_000])
    for registry in (plain, guarded):
        registry.push(image, f"{name}:1")
    way = BrokenWay(plain, cut_after=1_500_000)
    try:
        _add(mirrored, "dying", way.url, position=1)
        login = ("--user", "reader", "--password-stdin")
        mirrored.labfleet(
            "mirror", "add", guarded.url, "--name", "guarded", *login, stdin=PASSWORD.encode()
        )
        out = mirrored.docker("pull", f"{name}:1").out
    finally:
        way.close()
    assert "Downloaded newer image" in out
    assert way.cuts == 1
    log = (mirrored.plan.state_dir / "log" / "image-store.log").read_text()
    assert "fetch.interrupted" in log
    listed = mirrored.labfleet("mirror", "ls").out
    assert PASSWORD not in listed + log
    fetched = {row.split()[0]: row.split()[5] for row in listed.splitlines()[1:]}
    assert float(fetched["guarded"].removesuffix("MB")) < 3.2, (
        "the second one was asked only for the rest"
    )
    mirrored.docker("rmi", f"{name}:1")


def test_a_store_that_is_killed_goes_on_where_it_was(
    mirrored: Fleet, plain: OtherRegistry, tmp_path: Path
) -> None:
    name = f"lab/killed{secrets.token_hex(3)}"
    plain.push(_image(tmp_path, [4_000_000]), f"{name}:1")
    way = BrokenWay(plain, cut_after=2_500_000, is_stalling=True)
    uploads = mirrored.plan.state_dir / "images" / "uploads"
    try:
        _add(mirrored, "slow", way.url)
        with mirrored.start("pull", f"{name}:1") as client:
            until(lambda: any(each.stat().st_size for each in uploads.glob("fetch-*")))
            mirrored.kill_service("image-store")
            assert client.wait(30) != 0
        mirrored.wait_ready()
        assert "Downloaded newer" in mirrored.docker("pull", f"{name}:1").out
    finally:
        way.close()
    assert any(ranged not in ("", "bytes=0-") for _, _, ranged in way.requests)
    assert list(uploads.glob("fetch-*")) == []
    mirrored.docker("rmi", f"{name}:1")


def test_what_was_fetched_is_there_when_no_mirror_answers(
    mirrored: Fleet,
    tenants: tuple[Tenant, Tenant],
    tmp_path: Path,
) -> None:
    ann, bob = tenants
    name = f"lab/kept{secrets.token_hex(3)}"
    with other_registry(tmp_path / "registry") as registry:
        registry.push(_image(tmp_path, [500_000]), f"{name}:1")
        _add(mirrored, "cable", registry.url, expiry_s=1)
        assert "Downloaded newer" in ann.docker("pull", f"{name}:1").out
        ann.docker("rmi", f"{name}:1")
        # A tag that has moved is seen once its time is over.
        registry.push(_image(tmp_path, [400_000]), f"{name}:1")
        until(lambda: "Downloaded newer" in ann.docker("pull", f"{name}:1").out, every_s=0.4)
        first = ann.docker("images", "-q", "--no-trunc", f"{name}:1").out
    assert "Downloaded newer" in bob.docker("pull", f"{name}:1").out
    assert bob.docker("images", "-q", "--no-trunc", f"{name}:1").out == first
    assert "up to date" in bob.docker("pull", f"{name}:1").out
    missing = bob.docker("pull", "lab/never:1", code=1).err
    assert "no mirror answers" in missing
    for tenant in tenants:
        tenant.docker("rmi", f"{name}:1")


def test_tenants_pull_from_registries_that_operators_named(
    mirrored: Fleet,
    tenants: tuple[Tenant, Tenant],
    plain: OtherRegistry,
    guarded: OtherRegistry,
    tmp_path: Path,
) -> None:
    ann, bob = tenants
    image = _image(tmp_path, [100_000])
    name = f"course/tool{secrets.token_hex(3)}"
    plain.push(image, f"{name}:1")
    guarded.push(image, f"{name}:1")
    # Operators may ask any registry, tenants only those that were named.
    assert (
        "have not opened the registry" in ann.docker("pull", f"{plain.host}/{name}:1", code=1).err
    )
    assert "Downloaded newer" in mirrored.docker("pull", f"{plain.host}/{name}:1").out
    _add(mirrored, "quay", plain.url, "quay.example")
    # What is pulled counts for a tenant's quota, and is not fetched where it does not fit.
    called, record = f"quay.example/{name}:1", recall(mirrored, "tenants", "ann")
    assert record is not None
    remember(mirrored, "tenants", "ann", {**record, "most_stored_bytes": 50_000})
    until(lambda: "quota of tenant ann" in ann.docker("pull", called, code=None).err)
    remember(mirrored, "tenants", "ann", record)
    until(lambda: ann.docker("pull", called, code=None).code == 0)
    ann.docker("rmi", called)
    for called in (f"{plain.host}/{name}:1", f"quay.example/{name}:1"):
        assert "Downloaded newer" in ann.docker("pull", called).out
        assert called in ann.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out
        ann.docker("create", "--name", "one", called)
        ann.docker("rm", "one")
        ann.docker("rmi", called)
    # A login of the client's own is used for the registry that the name says; nobody else has of it.
    _add(mirrored, "guarded", guarded.url, "guarded.example")
    called = f"{guarded.host}/{name}:1"
    assert "docker login" in ann.docker("pull", called, code=1).err
    login = {"username": "reader", "password": PASSWORD}
    assert "Downloaded newer" in _pull_with(ann, called, login)
    assert "docker login" in bob.docker("pull", called, code=1).err
    wrong = _pull_with(bob, called, {"username": "reader", "password": "no"})
    assert "pull access denied" in wrong
    ann.docker("rmi", called)
    mirrored.docker("rmi", f"{plain.host}/{name}:1")


def _pull_with(tenant: Tenant, name: str, login: dict[str, str]) -> str:
    word = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
    headers = {"Authorization": f"Bearer {tenant.token}", "X-Registry-Auth": word}
    repository, _, tag = name.rpartition(":")
    answer = httpx.post(
        f"http://{tenant.fleet.plan.choices.tcp}/images/create",
        params={"fromImage": repository, "tag": tag},
        headers=headers,
    )
    return answer.text


def test_platforms_and_descriptions_of_an_index(
    mirrored: Fleet, plain: OtherRegistry, tmp_path: Path
) -> None:
    name = f"multi{secrets.token_hex(3)}"
    digests = {}
    for machine in ("amd64", "arm64"):
        image = archive_of(tmp_path / f"{machine}.tar", [secrets.token_bytes(50_000)], machine)
        plain.push(image, f"library/{name}:{machine}")
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        found = httpx.get(
            f"{plain.url}/v2/library/{name}/manifests/{machine}", headers={"Accept": kind}
        )
        digests[machine] = (found.headers["Docker-Content-Digest"], len(found.content), kind)
    rows = [
        {
            "mediaType": kind,
            "digest": digest,
            "size": size,
            "platform": {"os": "linux", "architecture": machine},
        }
        for machine, (digest, size, kind) in digests.items()
    ]
    kind = "application/vnd.docker.distribution.manifest.list.v2+json"
    body = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": rows}, indent=1)
    put = httpx.put(
        f"{plain.url}/v2/library/{name}/manifests/latest",
        content=body,
        headers={"Content-Type": kind},
    )
    assert put.status_code == 201, put.text
    index = put.headers["Docker-Content-Digest"]
    _add(mirrored, "plain", plain.url)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(mirrored.plan.socket))) as client:
        about = client.get(f"http://docker/distribution/{name}/json").json()
    assert about["Descriptor"]["digest"] == index
    assert [each["architecture"] for each in about["Platforms"]] == ["amd64", "arm64"]
    own = mirrored.docker("pull", name).out
    assert index in own
    inspect = ("image", "inspect", "-f", "{{.Architecture}}", name)
    assert mirrored.docker(*inspect).out == "amd64"
    mirrored.docker("rmi", name)
    assert index in mirrored.docker("pull", "--platform", "linux/arm64", name).out
    assert mirrored.docker(*inspect).out == "arm64"
    mirrored.docker("rmi", name)
    none = mirrored.docker("pull", "--platform", "linux/s390x", name, code=1).err
    assert "no matching manifest for linux/s390x in the manifest list entries" in none
    single = mirrored.docker("pull", "--platform", "linux/s390x", f"{name}:amd64").out
    assert "does not match the specified platform" in single
    mirrored.docker("pull", "-a", name)
    tags = mirrored.docker("images", name, "--format", "{{.Tag}}").out.split()
    assert sorted(tags) == ["amd64", "arm64", "latest"]
    mirrored.docker("rmi", *(f"{name}:{tag}" for tag in tags))


def test_builds_and_clients_of_the_registry_get_what_mirrors_have(
    mirrored: Fleet, plain: OtherRegistry, tmp_path: Path
) -> None:
    name = f"course/base{secrets.token_hex(3)}"
    plain.push(_image(tmp_path, [200_000, 2_000_000]), f"{name}:1")
    _add(mirrored, "plain", plain.url)
    login = ("--src-creds", f"operators:{mirrored.plan.fleet_secret}")
    words = ["skopeo", "copy", "-q", "--src-tls-verify=false", *login]
    for number, source in enumerate((name, f"docker.io/{name}")):
        done = subprocess.run(
            [*words, f"docker://{mirrored.plan.registry}/{source}:1", f"dir:{tmp_path}/{number}"],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    with httpx.Client(base_url=mirrored.plan.registry_url) as client:
        assert client.get(f"/v2/{name}/tags/list").json() == {"name": name, "tags": ["1"]}
        assert client.get("/v2/course/never/manifests/1").status_code == 404
        digest = f"sha256:{'0' * 64}"
        assert (
            client.get(f"/v2/{name}/blobs/{digest}").json()["errors"][0]["code"] == "BLOB_UNKNOWN"
        )
    recipe = f"FROM {name}:1\nCOPY Dockerfile /recipe\n".encode()
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_bytes(recipe)
    mirrored.docker("build", "-q", "-t", "course/built", str(tmp_path / "context"))
    mirrored.docker("rmi", "course/built", f"{name}:1")


def test_mirrors_are_added_listed_and_removed(mirrored: Fleet) -> None:
    _add(mirrored, "quay", "http://127.0.0.1:3", "quay.example")
    _add(mirrored, "second", "http://127.0.0.1:2")
    mirrored.labfleet("mirror", "add", "http://127.0.0.1:9", "--first")
    rows = [row.split()[0] for row in mirrored.labfleet("mirror", "ls").out.splitlines()[1:]]
    assert rows == ["127-0-0-1-9", "second", "quay"]
    again = mirrored.labfleet("mirror", "add", "http://127.0.0.1:9", code=1)
    assert "exists already" in again.out
    mirrored.labfleet("mirror", "rm", "second")
    assert recall(mirrored, "upstreams", "second") is None
    assert "there is no mirror second" in mirrored.labfleet("mirror", "rm", "second", code=1).out
