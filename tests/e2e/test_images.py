"""The image store with clients that we did not write."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet


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
    assert "No such image" in fleet.docker("pull", "nosuch", code=1).err


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo")
def test_skopeo_copies_out_and_in(fleet: Fleet, tmp_path: Path) -> None:
    store = fleet.plan.registry
    layout = f"oci:{tmp_path}/layout:busybox"
    _run("skopeo", "copy", "--src-tls-verify=false", f"docker://{store}/busybox:latest", layout)
    _run("skopeo", "copy", "--dest-tls-verify=false", layout, f"docker://{store}/copied/box:v2")
    _run("skopeo", "copy", "--dest-tls-verify=false", "--format", "v2s2", layout,
         f"docker://{store}/copied/schema2:v2")  # fmt: skip
    tags = json.loads(_run("skopeo", "list-tags", "--tls-verify=false",
                           f"docker://{store}/copied/box"))  # fmt: skip
    assert tags["Tags"] == ["v2"]
    for name in ("copied/box:v2", "copied/schema2:v2"):
        assert fleet.docker("run", "--rm", name, "echo", "ok").out == "ok"
    fleet.docker("rmi", "copied/schema2:v2")
    _run("skopeo", "delete", "--tls-verify=false", f"docker://{store}/copied/box:v2")
    assert "No such image" in fleet.docker("run", "copied/box:v2", code=125).err


def test_an_upload_with_a_wrong_digest_is_refused(fleet: Fleet) -> None:
    base = f"http://{fleet.plan.registry}"
    begin = urllib.request.Request(f"{base}/v2/bad/blobs/uploads/", method="POST")
    with urllib.request.urlopen(begin) as answer:
        location = answer.headers["Location"]
    wrong = "sha256:" + "0" * 64
    finish = urllib.request.Request(
        f"{base}{location}?digest={wrong}", data=b"other bytes", method="PUT"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(finish)
    assert caught.value.code == 400
    assert json.loads(caught.value.read())["errors"][0]["code"] == "DIGEST_INVALID"


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
