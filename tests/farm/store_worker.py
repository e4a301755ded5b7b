"""Clients of a registry who know what was acknowledged to them, and what may have happened besides."""

import contextlib
import hashlib
import json
import random
from dataclasses import dataclass, field

import httpx

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data: bytes) -> str:
    """As the registry names it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Image:
    """What a tag leads to."""

    manifest: bytes
    blobs: tuple[bytes, ...]


@dataclass
class Worker:
    """Pushes and deletes in a repository of its own; layers come from a pool that all share."""

    name: str
    pool: list[bytes]
    chance: random.Random
    tags: dict[str, Image | None] = field(default_factory=dict)
    """What was acknowledged last: an image, or that it is gone."""
    doing: tuple[str, Image | None] | None = None
    """What is asked for now: it may or may not have happened."""

    def step(self, client: httpx.Client) -> None:
        """Push or delete one tag. Raises httpx.TransportError when the store goes away."""
        tag = f"t{self.chance.randrange(4)}"
        if self.tags.get(tag) is not None and self.chance.random() < 0.35:
            self._delete(client, tag)
        else:
            self._push(client, tag)

    def _push(self, client: httpx.Client, tag: str) -> None:
        image = self._image()
        self.doing = (tag, image)
        for _ in range(20):
            for blob in image.blobs:
                self._upload(client, blob)
            answer = client.put(
                f"/{self.name}/manifests/{tag}",
                content=image.manifest,
                headers={"Content-Type": MANIFEST},
            )
            if answer.status_code == httpx.codes.CREATED:
                break
            assert "MANIFEST_BLOB_UNKNOWN" in answer.text, answer.text
        else:
            raise AssertionError("the collector was quicker twenty times")
        self.tags[tag], self.doing = image, None

    def _delete(self, client: httpx.Client, tag: str) -> None:
        image = self.tags[tag]
        assert image is not None
        self.doing = (tag, None)
        answer = client.delete(f"/{self.name}/manifests/{tag}")
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        self.tags[tag], self.doing = None, None
        if all(each is None or each.manifest != image.manifest for each in self.tags.values()):
            answer = client.delete(f"/{self.name}/manifests/{digest_of(image.manifest)}")
            assert answer.status_code == httpx.codes.ACCEPTED, answer.text

    def _image(self) -> Image:
        layers = self.chance.sample(self.pool, self.chance.randint(1, 2))
        layers.append(self.chance.randbytes(self.chance.randint(1, 3000)))
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "author": str(self.chance.random()), "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(each) for each in layers]},
        }).encode()  # fmt: skip
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": _about(CONFIG, config),
            "layers": [_about(LAYER, each) for each in layers],
        }).encode()  # fmt: skip
        return Image(manifest, (config, *layers))

    def _upload(self, client: httpx.Client, blob: bytes) -> None:
        digest = digest_of(blob)
        if client.head(f"/{self.name}/blobs/{digest}").is_success:
            return
        begun = client.post(f"/{self.name}/blobs/uploads/")
        assert begun.status_code == httpx.codes.ACCEPTED, begun.text
        where = begun.headers["location"].removeprefix("/v2")
        half = len(blob) // 2
        client.patch(where, content=blob[:half])
        done = client.put(where, params={"digest": digest}, content=blob[half:])
        assert done.status_code == httpx.codes.CREATED, done.text

    def check(self, client: httpx.Client) -> None:
        """All that was acknowledged holds, byte for byte. Raises AssertionError."""
        for tag, image in self.tags.items():
            may_be = {image, self.doing[1]} if self.doing and self.doing[0] == tag else {image}
            answer = client.get(f"/{self.name}/manifests/{tag}")
            found = answer.content if answer.is_success else None
            assert found in {each and each.manifest for each in may_be}, (self.name, tag, found)
            for each in may_be:
                if each is not None and each.manifest == found:
                    self._check_blobs(client, each)

    def _check_blobs(self, client: httpx.Client, image: Image) -> None:
        for blob in image.blobs:
            got = client.get(f"/{self.name}/blobs/{digest_of(blob)}")
            assert got.content == blob, (self.name, digest_of(blob), got.status_code)

    def after_restart(self, client: httpx.Client) -> None:
        """What may or may not have happened is looked at, and known from now on."""
        if self.doing is None:
            return
        tag, image = self.doing
        answer = client.get(f"/{self.name}/manifests/{tag}")
        has_happened = answer.is_success == (image is not None) and (
            image is None or answer.content == image.manifest
        )
        if has_happened:
            self.tags[tag] = image
        self.doing = None
        with contextlib.suppress(KeyError):
            if self.tags[tag] is None:
                del self.tags[tag]


def push_image(
    client: httpx.Client, repository: str, tag: str, blobs: tuple[bytes, bytes]
) -> bytes:
    """Push a config and a layer; the image's manifest, once all of it is acknowledged."""
    for blob in blobs:
        digest = digest_of(blob)
        sent = client.post(f"/{repository}/blobs/uploads/", params={"digest": digest}, content=blob)
        assert sent.status_code == httpx.codes.CREATED, sent.text
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": _about(CONFIG, blobs[0]),
        "layers": [_about(LAYER, blobs[1])],
    }).encode()  # fmt: skip
    done = client.put(
        f"/{repository}/manifests/{tag}", content=manifest, headers={"Content-Type": MANIFEST}
    )
    assert done.status_code == httpx.codes.CREATED, done.text
    return manifest


def _about(kind: str, data: bytes) -> dict[str, object]:
    """A descriptor."""
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}
