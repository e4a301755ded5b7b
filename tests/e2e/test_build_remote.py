"""Contexts that are fetched: by the builder, in the network of the tenant's containers, not by the host."""

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.test_build_words import context
from tests.farm.fleet import Fleet
from tests.farm.tenant import Tenant


def _git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def _site(folder: Path) -> Path:
    """What a web server is to serve: a Dockerfile, an archive, a repository."""
    work = folder / "work"
    (work / "sub").mkdir(parents=True)
    (work / "Dockerfile").write_text("FROM busybox\nRUN echo from-git\n")
    (work / "sub" / "Dockerfile").write_text("FROM busybox\nRUN echo from-sub\n")
    (work / "out").symlink_to("/etc")
    _git(work, "init", "-q")
    _git(work, "add", ".")
    _git(work, "commit", "-q", "-m", "x")
    _git(work, "tag", "v1")
    site = folder / "www"
    site.mkdir()
    _git(folder, "clone", "-q", "--bare", "work", "www/repo.git")
    _git(site / "repo.git", "update-server-info")
    (site / "Dockerfile").write_text("FROM busybox\nRUN echo from-text\n")
    packed = context(Dockerfile="FROM busybox\nCOPY f /\nRUN cat /f\n", f="from-archive\n")
    (site / "all.tar.gz").write_bytes(gzip.compress(packed))
    return site


@pytest.fixture
def web(tenants: tuple[Tenant, Tenant], tmp_path: Path) -> Iterator[str]:
    """A web server among the containers of a tenant."""
    ann = tenants[0]
    ann.docker("create", "--name", "web", "busybox", "httpd", "-f", "-h", "/www")
    ann.docker("cp", str(_site(tmp_path)), "web:/www")
    ann.docker("start", "web")
    inside = json.loads(ann.docker("inspect", "web").out)[0]["NetworkSettings"]
    yield f"http://{next(iter(inside['Networks'].values()))['IPAddress']}"
    ann.docker("rm", "-f", "web")
    ann.docker("image", "prune", "-f")


def _build(tenant: Tenant, remote: str, **query: str) -> httpx.Response:
    with tenant.http() as client:
        return client.post("/build", params={"remote": remote, **query}, timeout=120)


def test_a_context_is_fetched_in_the_network_of_the_tenant(
    tenants: tuple[Tenant, Tenant], web: str
) -> None:
    ann = tenants[0]
    for remote, words in (
        (f"{web}/all.tar.gz", "from-archive"),
        (f"{web}/Dockerfile", "from-text"),
        (f"{web}/repo.git", "from-git"),
        (f"{web}/repo.git#v1:sub", "from-sub"),
    ):
        said = _build(ann, remote, networkmode="none").text
        assert words in said
        assert "Successfully built" in said
    missing = _build(ann, f"{web}/nosuch")
    assert missing.status_code == 404
    assert "failed to GET" in missing.json()["message"]
    for remote, words in (
        (f"{web}/repo.git#nosuch", "error fetching"),
        (f"{web}/repo.git#:out", "leads outside"),
        ("file:///etc/passwd", "could not be recognized as URL"),
        (f"http://{ann.fleet.plan.choices.tls}/v1.50/_ping", "Connection refused"),
    ):
        refused = _build(ann, remote)
        assert refused.status_code == 400
        assert words in refused.json()["message"]


@pytest.mark.long  # it takes a minute to say that nobody answers
def test_a_context_of_another_tenants_network_is_not_reached(
    tenants: tuple[Tenant, Tenant], web: str
) -> None:
    other = _build(tenants[1], f"{web}/Dockerfile")
    assert other.status_code == 400
    assert "error downloading remote context" in other.json()["message"]


def test_a_file_is_added_from_its_address(
    fleet: Fleet, tenants: tuple[Tenant, Tenant], web: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD {web}/Dockerfile /f\nRUN cat /f\n")
    env = {**tenants[0].env, "DOCKER_BUILDKIT": "0"}
    said = fleet.docker("build", str(tmp_path), env=env, timeout_s=120).out
    assert "RUN echo from-text" in said
