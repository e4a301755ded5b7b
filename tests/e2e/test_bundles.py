"""`labfleet image export` and `import`: images go to a campus without Internet and back, also by skopeo."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, running_fleet


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of another campus."""
    with running_fleet(tmp_path_factory.mktemp("north"), hosts=1, suffix="-north") as fleet:
        yield fleet


def _sent(fleet: Fleet, tmp_path: Path, *more: str) -> Path:
    """A bundle of two names of an image with a layer of its own."""
    made = fleet.docker("create", "busybox", "cat", "/lesson").out
    (tmp_path / "lesson").write_text("learnt")
    fleet.docker("cp", "-q", str(tmp_path / "lesson"), f"{made}:/lesson")
    fleet.docker("commit", made, "trip/lesson:v1")
    fleet.docker("rm", made)
    path = tmp_path / "lesson.tar"
    said = fleet.labfleet("image", "export", "trip/lesson:v1", "busybox", "-o", str(path), *more)
    assert "trip/lesson:v1 is " in said.out
    return path


def _image_id(fleet: Fleet, name: str) -> str:
    return fleet.docker("image", "inspect", "--format", "{{.Id}}", name).out


def test_images_go_to_another_fleet_and_back(fleet: Fleet, north: Fleet, tmp_path: Path) -> None:
    bundle, key = _sent(fleet, tmp_path), tmp_path / "south.pem"
    fleet.labfleet("image", "sign-key", "--out", str(key))
    refused = north.labfleet("image", "import", str(bundle), code=1)
    assert "that this fleet does not trust" in " ".join(refused.out.split())
    assert "trip/lesson" not in north.docker("images").out
    fingerprint = north.labfleet("image", "trust", "add", str(key)).out.split()[1]
    assert f"south       {fingerprint}" in north.labfleet("image", "trust", "ls").out
    said = north.labfleet("image", "import", str(bundle)).out
    assert said.startswith(f"signed by south ({fingerprint[:16]})")
    assert _image_id(north, "trip/lesson:v1") == _image_id(fleet, "trip/lesson:v1")
    assert north.docker("run", "--rm", "trip/lesson:v1").out == "learnt"

    back = tmp_path / "back.tar"
    north.docker("tag", "trip/lesson:v1", "trip/back:v2")
    north.labfleet("image", "export", "trip/back:v2", "-o", str(back), "--unsigned")
    refused = fleet.labfleet("image", "import", str(back), code=1)
    assert "is not signed; --allow-unsigned takes it" in " ".join(refused.out.split())
    fleet.labfleet("image", "import", str(back), "--allow-unsigned")
    assert _image_id(fleet, "trip/back:v2") == _image_id(fleet, "trip/lesson:v1")
    north.labfleet("image", "trust", "rm", "south")
    assert "does not trust" in " ".join(
        north.labfleet("image", "import", str(bundle), code=1).out.split()
    )
    fleet.docker("rmi", "trip/lesson:v1", "trip/back:v2")


def test_of_an_altered_bundle_nothing_is_taken(fleet: Fleet, tmp_path: Path) -> None:
    bundle = _sent(fleet, tmp_path)
    fleet.docker("rmi", "trip/lesson:v1")
    data = bytearray(bundle.read_bytes())
    data[-12_000] ^= 1  # within the last layer or what follows it
    place = data.rindex(b"org.opencontainers.image.ref.name")
    for offset, word in ((len(data) // 2, "has other bytes"), (place, "signed")):
        changed = bytearray(data)
        changed[offset] ^= 1
        (tmp_path / "altered.tar").write_bytes(changed)
        refused = fleet.labfleet("image", "import", str(tmp_path / "altered.tar"), code=1)
        assert word in " ".join(refused.out.split())
        assert "trip/lesson" not in fleet.docker("images").out
    missing = fleet.labfleet("image", "export", "no/such", "-o", str(tmp_path / "x.tar"), code=1)
    assert "there is no image no/such:latest" in " ".join(missing.out.split())
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo on this machine")
def test_a_bundle_is_what_skopeo_reads_and_writes(fleet: Fleet, tmp_path: Path) -> None:
    bundle, back = _sent(fleet, tmp_path), tmp_path / "skopeo.tar"

    def skopeo(*words: str) -> str:
        done = subprocess.run(
            ["skopeo", *words], capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    about = json.loads(skopeo("inspect", f"oci-archive:{bundle}:trip/lesson:v1"))
    assert len(about["Layers"]) == 2
    skopeo(
        "copy", "-q", f"oci-archive:{bundle}:trip/lesson:v1", f"oci-archive:{back}:trip/copied:v1"
    )
    fleet.labfleet("image", "import", str(back), "--allow-unsigned")
    assert _image_id(fleet, "trip/copied:v1") == _image_id(fleet, "trip/lesson:v1")
    loaded = fleet.docker("load", "-i", str(bundle)).out
    assert "Loaded image: trip/lesson:v1" in loaded
    fleet.docker("rmi", "trip/lesson:v1", "trip/copied:v1")
