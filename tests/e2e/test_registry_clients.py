"""The fleet's registry with podman and buildah: log in, pull, push, list, inspect, indexes."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet

Run = Callable[..., str]


@pytest.fixture
def run(fleet: Fleet, tmp_path: Path) -> Iterator[Run]:
    """Run one of the programs, logged in, with storage of its own."""
    auth = tmp_path / "auth.json"
    conf = tmp_path / "storage.conf"
    conf.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n'
    )
    registries = tmp_path / "registries.conf"
    registries.write_text(f'[[registry]]\nlocation = "{fleet.plan.registry}"\ninsecure = true\n')
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "CONTAINERS_STORAGE_CONF": str(conf),
        "CONTAINERS_REGISTRIES_CONF": str(registries),
        "REGISTRY_AUTH_FILE": str(auth),
        "TMPDIR": str(tmp_path),
    }

    def words_of(*words: str, stdin: str = "") -> str:
        if shutil.which(words[0]) is None:
            pytest.skip(f"no {words[0]} on this machine")
        done = subprocess.run(
            words, input=stdin, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    yield words_of
    if shutil.which("buildah") is not None:
        words_of("buildah", "rm", "--all")
        words_of("buildah", "rmi", "--all", "--force")


def test_podman_logs_in_pulls_pushes_and_lists(fleet: Fleet, run: Run) -> None:
    store = fleet.plan.registry
    login = ("--tls-verify=false", "-u", "operators", "--password-stdin", store)
    assert "Login Succeeded" in run("podman", "login", *login, stdin=fleet.plan.fleet_secret)
    run("podman", "pull", "-q", f"{store}/busybox")
    for tag in ("1", "2"):
        target = f"{store}/clients/podman:{tag}"
        run("podman", "tag", f"{store}/busybox", target)
        run("podman", "push", "-q", target)
    listed = run("podman", "search", "--list-tags", f"{store}/clients/podman")
    assert [line.split()[1] for line in listed.splitlines()[1:]] == ["1", "2"]
    index = f"{store}/clients/podman:both"
    run("podman", "manifest", "create", index)
    run("podman", "manifest", "add", index, f"docker://{store}/clients/podman:1")
    run("podman", "manifest", "push", "--all", index, f"docker://{index}")
    about = json.loads(run("podman", "manifest", "inspect", index))
    assert about["manifests"][0]["platform"]["os"] == "linux"
    assert fleet.docker("run", "--rm", "clients/podman:both", "echo", "ok").out == "ok"
    for tag in ("1", "2", "both"):
        fleet.docker("rmi", f"clients/podman:{tag}")


def test_buildah_begins_from_the_store_and_pushes_to_it(
    fleet: Fleet, run: Run, tmp_path: Path
) -> None:
    store = fleet.plan.registry
    run("buildah", "login", "--tls-verify=false", "-u", "operators", "--password-stdin", store,
        stdin=fleet.plan.fleet_secret)  # fmt: skip
    work = run("buildah", "from", "-q", f"{store}/busybox")
    (tmp_path / "made").write_text("by buildah")
    run("buildah", "copy", "-q", work, str(tmp_path / "made"), "/made")
    image = run("buildah", "commit", "-q", work)
    for kind in ("oci", "v2s2"):
        name = f"clients/buildah:{kind}"
        run("buildah", "push", "-q", "--format", kind, image, f"docker://{store}/{name}")
        assert fleet.docker("run", "--rm", name, "cat", "/made").out == "by buildah"
        fleet.docker("rmi", name)
