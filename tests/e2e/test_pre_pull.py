"""`labfleet image pre-pull`, and where containers of an image go that only some hosts have."""

import io
import os
import tarfile
from collections.abc import Iterator

import pytest
from tests.farm.fleet import Fleet


@pytest.fixture
def image(fleet: Fleet) -> Iterator[str]:
    """An image that no host has: busybox with some noise beside it."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        recipe = b"FROM busybox\nCOPY noise /noise\n"
        info.size = len(recipe)
        archive.addfile(info, io.BytesIO(recipe))
        info = tarfile.TarInfo("noise")
        info.size = 300_000
        archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    fleet.docker("build", "-q", "-t", "prepulled:1", "-", stdin=tar.getvalue())
    yield "prepulled:1"
    fleet.docker("rmi", "-f", "prepulled:1")


def test_an_image_is_fetched_to_hosts_and_containers_go_there(fleet: Fleet, image: str) -> None:
    done = fleet.labfleet("image", "pre-pull", image, "--host", "host2")
    assert "host2: done" in done.out
    assert done.out.splitlines()[-1] == f"{image} is on 1 of 1 hosts"
    hosts = set()
    for number in range(4):
        fleet.docker("create", "--name", f"p{number}", "--memory", "8m", image, "true")
        hosts.add(fleet.host_of(f"p{number}"))
        fleet.docker("rm", f"p{number}")
    assert hosts == {"host2"}
    log = fleet.plan.state_dir / "log" / "runtime-agent-host2.log"
    fetched = log.read_text().count("layer.ready")
    fleet.docker("run", "--rm", image, "ls", "/noise")
    assert log.read_text().count("layer.ready") == fetched

    done = fleet.labfleet("image", "pre-pull", image)
    assert done.out.splitlines()[-1] == f"{image} is on 3 of 3 hosts"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nonesuch:1",), "nonesuch"),
        (
            ("busybox", "--host", "mars"),
            "no host mars gives a sign of life: there are host1, host2",
        ),
    ],
)
def test_what_cannot_be_fetched_says_why(fleet: Fleet, words: tuple[str, ...], why: str) -> None:
    done = fleet.labfleet("image", "pre-pull", *words, code=1)
    assert why in " ".join((done.out + done.err).split())
