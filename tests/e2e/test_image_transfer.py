"""save, load, export, import, commit: images go out and come back, also through clients we did not write."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet
from tests.farm.raw_http import asked


def about(fleet: Fleet, name: str) -> dict:
    return json.loads(fleet.docker("image", "inspect", name).out)[0]


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]


def test_an_image_saved_and_loaded_is_the_same(fleet: Fleet) -> None:
    fleet.docker("tag", "busybox", "trip/one:a")
    fleet.docker("tag", "busybox", "trip/one:b")
    before = about(fleet, "trip/one:a")
    data = fleet.docker("save", "trip/one").raw
    found = members(data)
    (entry,) = json.loads(found["manifest.json"])
    assert entry["RepoTags"] == ["trip/one:a", "trip/one:b"]
    assert set(json.loads(found["repositories"])["trip/one"]) == {"a", "b"}
    assert {"index.json", "oci-layout"} <= set(found)
    for name in (entry["Config"], *entry["Layers"]):
        assert name == f"blobs/sha256/{hashlib.sha256(found[name]).hexdigest()}"
    fleet.docker("rmi", "trip/one:a", "trip/one:b")
    loaded = fleet.docker("load", stdin=gzip.compress(data, 1)).out
    assert "Loaded image: trip/one:a\nLoaded image: trip/one:b" in loaded
    after = about(fleet, "trip/one:a")
    assert after["Id"] == before["Id"]
    assert after["RootFS"] == before["RootFS"]
    assert fleet.docker("run", "--rm", "trip/one:b", "echo", "back").out == "back"
    fleet.docker("rmi", "trip/one:a", "trip/one:b")


def test_several_images_and_ids_are_saved(fleet: Fleet) -> None:
    fleet.docker("tag", "busybox", "trip/two:x")
    made = fleet.docker("import", "-", "trip/three", stdin=_tar({"hello": b"world"})).out
    data = fleet.docker("save", "trip/two:x", made).raw
    entries = json.loads(members(data)["manifest.json"])
    assert sorted(str(entry["RepoTags"]) for entry in entries) == ["None", "['trip/two:x']"]
    fleet.docker("rmi", "trip/three", "trip/two:x")
    said = fleet.docker("load", "-q", stdin=data).out
    assert f"Loaded image ID: {made}" in said
    assert made[7:19] in fleet.docker("images", "-f", "dangling=true").out
    fleet.docker("rmi", "trip/two:x")
    pruned = fleet.docker("image", "prune", "-f").out
    assert f"deleted: {made}" in pruned
    assert "No such image" in fleet.docker("save", "nosuch", code=1).err


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_export_and_import_with_changes(fleet: Fleet) -> None:
    fleet.docker("run", "--name", "source", "busybox", "sh", "-c", "echo kept > /root/note")
    tar = fleet.docker("export", "source").raw
    image = fleet.docker(
        "import", "--message", "from a test", "--change", 'CMD ["cat", "/root/note"]',
        "--change", "ENV A=1 B='two words'", "--change", "EXPOSE 80 53/udp",
        "--change", "LABEL course=os", "--change", "WORKDIR /root", "-", "trip/imported:1",
        stdin=tar,
    ).out  # fmt: skip
    assert image.startswith("sha256:")
    shown = about(fleet, "trip/imported:1")
    assert shown["Id"] == image
    assert shown["Comment"] == "from a test"
    assert shown["Config"]["Env"] == ["A=1", "B=two words"]
    assert set(shown["Config"]["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert shown["Config"]["Labels"] == {"course": "os"}
    assert fleet.docker("run", "--rm", "trip/imported:1").out == "kept"
    fleet.docker("rmi", "trip/imported:1")
    wrong = fleet.docker("import", "-", "trip/bad", stdin=b"no tar at all" * 200, code=1)
    assert "invalid tar header" in wrong.err
    assert "No such image" in fleet.docker("image", "inspect", "trip/bad", code=1).err
    refused = fleet.docker("import", "--change", "RUN x", "-", "trip/bad", stdin=tar, code=1)
    assert "is not a valid change command" in refused.err


def test_a_commit_keeps_changes_and_is_saved_and_loaded(fleet: Fleet) -> None:
    script = "echo new > /root/new; rm /etc/group; chmod 700 /tmp; rm -r /home; mkdir /home"
    fleet.docker("run", "--name", "worked", "-e", "WHO=me", "busybox", "sh", "-c", script)
    image = fleet.docker(
        "commit", "-a", "Ann <ann@example.org>", "-m", "more", "-c", "CMD cat /root/new",
        "-c", "USER nobody", "worked", "trip/commit:v1",
    ).out  # fmt: skip
    shown = about(fleet, "trip/commit:v1")
    assert (shown["Id"], shown["Author"], shown["Comment"]) == (
        image,
        "Ann <ann@example.org>",
        "more",
    )
    assert shown["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /root/new"]
    assert "WHO=me" in shown["Config"]["Env"]
    assert len(shown["RootFS"]["Layers"]) == 2
    steps = fleet.docker("history", "--format", "{{.Comment}}", "trip/commit:v1").out.splitlines()
    assert steps[0] == "more"
    data = fleet.docker("save", "trip/commit:v1").raw
    fleet.docker("rmi", "trip/commit:v1")
    assert "Loaded image: trip/commit:v1" in fleet.docker("load", stdin=data).out
    assert about(fleet, "trip/commit:v1")["Id"] == image
    run = ("run", "--rm", "-u", "root", "trip/commit:v1")
    assert fleet.docker(*run).out == "new"
    assert fleet.docker(*run, "sh", "-c", "ls /etc/group; stat -c %a /tmp", code=None).out == "700"
    fleet.docker("rmi", "trip/commit:v1")


def test_a_running_container_stands_still_while_it_is_committed(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "busy", "busybox", "sleep", "600")
    begun = str(time.time())
    fleet.docker("commit", "busy", "trip/busy")
    fleet.docker("commit", "-p=false", "busy", "trip/busy:2")
    said = fleet.docker("events", "--since", begun, "--until", str(time.time()), "-f", "container=busy",
                        "--format", "{{.Action}}").out.split()  # fmt: skip
    assert [each for each in said if each in ("pause", "unpause", "commit")] == [
        "pause", "unpause", "commit", "commit",
    ]  # fmt: skip
    assert fleet.inspect("busy")["State"]["Status"] == "running"
    fleet.docker("rmi", "trip/busy", "trip/busy:2")


def test_a_cut_upload_makes_no_image(fleet: Fleet) -> None:
    data = fleet.docker("save", "busybox").raw
    wrong = fleet.docker("load", stdin=data[: len(data) // 2], code=1)
    assert wrong.err
    with asked(fleet.plan.socket, "POST", "/images/load", data[:700]) as answer:
        assert answer.status == 200, "docker has begun its answer by then"
        assert b'"errorDetail"' in answer.until(b"}")
    nothing = fleet.docker("load", stdin=_tar({"readme": b"x"}), code=1)
    assert "manifest.json" in nothing.err


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo")
def test_skopeo_reads_what_we_save_and_we_load_what_it_writes(fleet: Fleet, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    fleet.docker("save", "-o", str(ours), "busybox:latest")
    _run("skopeo", "copy", f"docker-archive:{ours}:busybox:latest",
         f"docker-archive:{theirs}:trip/theirs:1")  # fmt: skip
    assert "Loaded image: trip/theirs:1" in fleet.docker("load", "-i", str(theirs)).out
    layout = tmp_path / "layout.tar"
    _run("skopeo", "copy", f"docker-archive:{ours}:busybox:latest",
         f"oci-archive:{layout}:trip/oci:1")  # fmt: skip
    assert "Loaded image: trip/oci:1" in fleet.docker("load", "-i", str(layout)).out
    for name in ("trip/theirs:1", "trip/oci:1"):
        assert fleet.docker("run", "--rm", name, "echo", "ok").out == "ok"
        fleet.docker("rmi", name)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
