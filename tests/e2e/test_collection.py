"""The collector of blobs while a fleet works: nothing that is referred to goes, everything else does."""

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import Fleet, running_fleet, until, until_clean

from labfleet_cli import fleet as fleets
from labfleet_cli.docker_api import DockerApi
from labfleet_cli.fleet_plan import Child, FleetPlan

EVERY_S, GRACE_S = 0.2, 3.0
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
SEED = 20261124
pytestmark = [  # the supervisor outlives the call that began it, as it is meant to
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WORKERS = 4


@pytest.fixture
def hasty_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A fleet whose image store collects all the time and waits three seconds only."""
    children = FleetPlan.children

    def hasty(plan: FleetPlan) -> tuple[Child, ...]:
        prefix = "LABFLEET_IMAGE_STORE_COLLECT_"
        more = {f"{prefix}EVERY_S": str(EVERY_S), f"{prefix}GRACE_S": str(GRACE_S)}
        return tuple(
            replace(child, env=child.env | more) if child.name == "image-store" else child
            for child in children(plan)
        )

    with running_fleet(tmp_path, hosts=1, suffix="-gc") as fleet:
        monkeypatch.setattr(FleetPlan, "children", hasty)
        assert fleets.start(fleet.plan, lambda _text: None)
        fleet.wait_ready()
        yield fleet


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Pusher:
    """Pushes, pulls and deletes in a repository of its own; layers come from a pool that all share."""

    base: str
    auth: tuple[str, str]
    name: str
    pool: list[bytes]
    chance: random.Random
    images: dict[str, list[bytes]] = field(default_factory=dict)
    """By tag: manifest, then the blobs."""
    pushed: int = 0

    def run(self, steps: int) -> None:
        """Do so many things at random. Raises AssertionError if something is lost."""
        with httpx.Client(base_url=self.base, auth=self.auth, timeout=60) as client:
            for _ in range(steps):
                what = self.chance.choice(
                    [self.push, self.push, self.pull, self.delete, self.litter]
                )
                what(client)
            self.check(client)

    def push(self, client: httpx.Client) -> None:
        """Push an image; where the collector was quicker than the push, it is pushed again."""
        layers = self.chance.sample(self.pool, self.chance.randint(1, 3))
        diffs = [digest_of(each) for each in layers]
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "author": f"{self.name}{self.pushed}",
            "rootfs": {"type": "layers", "diff_ids": diffs}, "config": {},
        }).encode()  # fmt: skip
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self.about(CONFIG, config),
            "layers": [self.about(LAYER, each) for each in layers],
        }).encode()  # fmt: skip
        tag = f"t{self.chance.randint(0, 3)}"
        for _ in range(20):
            for blob in (*layers, config):
                self.upload(client, blob)
            answer = client.put(
                f"/{self.name}/manifests/{tag}",
                content=manifest,
                headers={"Content-Type": MANIFEST},
            )
            if answer.status_code == httpx.codes.CREATED:
                break
            assert "MANIFEST_BLOB_UNKNOWN" in answer.text, answer.text
        else:
            pytest.fail("twenty pushes were too slow")
        old = self.images.pop(tag, [b""])[0]
        self.images[tag] = [manifest, config, *layers]
        self.pushed += 1
        self.drop(client, old)

    @staticmethod
    def about(kind: str, data: bytes) -> dict[str, object]:
        """A descriptor."""
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    def upload(self, client: httpx.Client, blob: bytes) -> None:
        """As clients do: only what is not there, mounted from a neighbour or sent."""
        digest = digest_of(blob)
        if client.head(f"/{self.name}/blobs/{digest}").is_success:
            return
        where = f"/{self.name}/blobs/uploads/"
        neighbour = f"gc/{self.chance.randint(0, WORKERS - 1)}"
        mounted = client.post(where, params={"mount": digest, "from": neighbour})
        if mounted.status_code == httpx.codes.CREATED:
            return
        sent = client.post(where, params={"digest": digest}, content=blob)
        assert sent.status_code == httpx.codes.CREATED, sent.text

    def pull(self, client: httpx.Client) -> None:
        """Everything that was pushed is there, byte for byte."""
        for tag, (manifest, *blobs) in self.images.items():
            assert client.get(f"/{self.name}/manifests/{tag}").content == manifest
            for blob in blobs:
                assert client.get(f"/{self.name}/blobs/{digest_of(blob)}").content == blob

    check = pull

    def delete(self, client: httpx.Client) -> None:
        """Delete a tag; its image goes where no other tag names it."""
        if not self.images:
            return
        tag = self.chance.choice(sorted(self.images))
        manifest = self.images.pop(tag)[0]
        client.delete(f"/{self.name}/manifests/{tag}")
        self.drop(client, manifest)

    def drop(self, client: httpx.Client, manifest: bytes) -> None:
        """Delete a manifest that no tag names any more."""
        if manifest and manifest not in [each[0] for each in self.images.values()]:
            client.delete(f"/{self.name}/manifests/{digest_of(manifest)}")

    def litter(self, client: httpx.Client) -> None:
        """A blob that no manifest names, and an upload that never ends."""
        data = self.chance.randbytes(100)
        client.post(
            f"/{self.name}/blobs/uploads/", params={"digest": digest_of(data)}, content=data
        )

    def needed(self) -> set[str]:
        """Digests of all that must stay."""
        return {digest_of(blob) for blobs in self.images.values() for blob in blobs}


def _stored(fleet: Fleet) -> set[str]:
    blobs = fleet.plan.state_dir / "images" / "blobs" / "sha256"
    return {f"sha256:{path.name}" for path in blobs.rglob("*") if path.is_file()}


def _interleave(fleet: Fleet, seed: int, steps: int) -> None:
    before = _stored(fleet)
    chance = random.Random(seed)
    pool = [chance.randbytes(chance.randint(1, 200_000)) for _ in range(12)]
    auth = ("operators", fleet.plan.fleet_secret)
    base = f"http://{fleet.plan.registry}/v2"
    pushers = [
        Pusher(base, auth, f"gc/{number}", pool, random.Random(seed * 100 + number))
        for number in range(WORKERS)
    ]
    failures: list[BaseException] = []

    def run(pusher: Pusher) -> None:
        try:
            pusher.run(steps)
        except BaseException as exc:  # noqa: BLE001 - told by the test
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(each,)) for each in pushers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert all(each.pushed for each in pushers)
    needed = set().union(*(each.needed() for each in pushers))
    until(lambda: _stored(fleet) - before == needed - before, 30)
    assert before <= _stored(fleet)
    with httpx.Client(base_url=base, auth=auth, timeout=60) as client:
        for pusher in pushers:
            pusher.check(client)
            while pusher.images:
                pusher.delete(client)
    until(lambda: _stored(fleet) == before, 30)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_and_nothing_stays_in_many_pushes(hasty_fleet: Fleet, seed: int) -> None:
    _interleave(hasty_fleet, seed, 150)


def test_what_is_referred_to_stays_and_all_else_goes(hasty_fleet: Fleet) -> None:
    fleet = hasty_fleet
    begun = _stored(fleet)
    fleet.docker("create", "--name", "holder", "busybox", "echo", "held")
    fleet.docker("commit", "holder", "made:one")
    fleet.docker("run", "-d", "--name", "user", "made:one", "sleep", "600")
    fleet.docker("rmi", "-f", "made:one")
    held = _stored(fleet) - begun
    _interleave(fleet, SEED, 25)
    assert held <= _stored(fleet), "a container's image has gone"
    assert fleet.docker("start", "-a", "holder").out == "held"
    fleet.docker("restart", "-t", "0", "user")
    with DockerApi(fleet.plan.socket) as api:
        api.remove_everything()
    fleet.docker("image", "prune", "-f")  # without a name it stays for as long as it is used
    until(lambda: _stored(fleet) == begun, 30)
    until_clean(fleet)
