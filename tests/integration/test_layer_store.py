"""A host's layers: what is not what the image says is refused, and of a refusal nothing is left."""

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.farm import one_host
from tests.farm.layer_hosts import TestStore, image, running_farm
from tests.farm.nats import NatsServer
from tests.zoo.animals import BOMBS, ESCAPES, GOOD_TAR, LINKS, PACKED

from labfleet_proto.errors import DigestMismatchError, InvalidRequestError, LabfleetError
from labfleet_proto.ids import Digest
from labfleet_proto.images import LayerRef
from labfleet_runtime_agent.adapters import unpacking

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners need root"),
]

BLOB = gzip.compress(GOOD_TAR, mtime=0)
OTHER = Digest(f"sha256:{'0' * 64}")
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def sha256(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


async def fetched(
    nats: NatsServer, home: Path, blob: bytes, digest: Digest, diff_id: Digest
) -> list[Path]:
    """What a host has of a layer that the registry answers with `blob`."""
    layer = LayerRef(digest=digest, diff_id=diff_id, media_type=GZIP, size_bytes=len(blob))
    async with running_farm(nats.url, TestStore((layer, blob)), home) as farm:
        host = await farm.host("h1", unpacking.unpack)
        try:
            return await host.layers.ensure(image((layer, blob)))
        except LabfleetError as exc:  # raised here it would come out wrapped in groups
            refusal = exc
    raise refusal


def left(home: Path) -> list[str]:
    """Everything of layers below a host's directory, without the places that hold them."""
    places = {"h1", "blobs", "boot"}
    every = (path.name for path in home.rglob("*"))
    return [name for name in every if name not in places and not name.startswith("layers")]


async def test_a_layer_that_is_what_the_image_says_is_there(nats: NatsServer) -> None:
    with one_host.directory() as home:
        (path,) = await fetched(nats, home, BLOB, sha256(BLOB), sha256(GOOD_TAR))
        assert (path / "etc" / "motd").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("digest", "diff_id", "word"),
    [(OTHER, sha256(GOOD_TAR), "its digest is"), (sha256(BLOB), OTHER, "its diff_id is")],
    ids=["digest", "diff-id"],
)
async def test_a_layer_with_another_digest_is_refused(
    nats: NatsServer, digest: Digest, diff_id: Digest, word: str
) -> None:
    with one_host.directory() as home:
        with pytest.raises(DigestMismatchError, match=word):
            await fetched(nats, home, BLOB, digest, diff_id)
        assert left(home) == []


@pytest.mark.parametrize(
    "make",
    [
        ESCAPES["`a/../../x`"],
        LINKS["a hard link to a directory"],
        BOMBS["a path of 100 names, 100 more through a link"],
        BOMBS["a file of 60 GiB without data"],
        PACKED["gzip with noise after it"],
        lambda: BLOB[:-9],
    ],
    ids=["way-out", "link", "deep", "cut-file", "noise", "cut-gzip"],
)
async def test_nothing_is_left_of_a_refused_layer(
    nats: NatsServer, make: Callable[[], bytes]
) -> None:
    blob = make()
    with one_host.directory() as home:
        with pytest.raises(LabfleetError) as caught:
            await fetched(nats, home, blob, sha256(blob), sha256(GOOD_TAR))
        assert isinstance(caught.value, InvalidRequestError)
        assert caught.value.message.startswith(f"unpack layer {sha256(blob)}: ")
        assert left(home) == []
