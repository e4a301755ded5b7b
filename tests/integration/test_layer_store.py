"""A host's layers: what is not what the image says is refused, and of a refusal nothing is left."""

import gzip
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.farm import one_host
from tests.zoo.animals import BOMBS, ESCAPES, GOOD_TAR, LINKS, PACKED

from labfleet_chassis import logs
from labfleet_proto.errors import DigestMismatchError, InvalidRequestError, LabfleetError
from labfleet_proto.ids import Digest
from labfleet_proto.images import ImagePin, LayerRef
from labfleet_runtime_agent.adapters.layer_store import LayerStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners need root"),
]

BLOB = gzip.compress(GOOD_TAR, mtime=0)
OTHER = Digest(f"sha256:{'0' * 64}")
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def sha256(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


@contextmanager
def registry(blob: bytes) -> Iterator[str]:
    """A registry that answers everything with one blob."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(blob)))
            self.end_headers()
            self.wfile.write(blob)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def fetched(home: Path, blob: bytes, digest: Digest, diff_id: Digest) -> list[Path]:
    """What a host has of a layer that the registry answers with `blob`."""
    layer = LayerRef(digest=digest, diff_id=diff_id, media_type=GZIP, size_bytes=len(blob))
    pin = ImagePin(
        reference="zoo", image_id=OTHER, repository="zoo", manifest_digest=OTHER, layers=(layer,)
    )
    with registry(blob) as url:
        store = LayerStore(home, url, "secret", logs.get("test"))
        try:
            return await store.ensure(pin)
        finally:
            await store.close()


def left(home: Path) -> list[str]:
    """Everything of layers below a host's directory, without the directories that hold them."""
    return [path.name for path in home.rglob("*") if not path.name.startswith("layers")]


async def test_a_layer_that_is_what_the_image_says_is_there() -> None:
    with one_host.directory() as home:
        (path,) = await fetched(home, BLOB, sha256(BLOB), sha256(GOOD_TAR))
        assert (path / "etc" / "motd").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("digest", "diff_id", "word"),
    [(OTHER, sha256(GOOD_TAR), "its digest is"), (sha256(BLOB), OTHER, "its diff_id is")],
    ids=["digest", "diff-id"],
)
async def test_a_layer_with_another_digest_is_refused(
    digest: Digest, diff_id: Digest, word: str
) -> None:
    with one_host.directory() as home:
        with pytest.raises(DigestMismatchError, match=word):
            await fetched(home, BLOB, digest, diff_id)
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
async def test_nothing_is_left_of_a_refused_layer(make: Callable[[], bytes]) -> None:
    blob = make()
    with one_host.directory() as home:
        with pytest.raises(LabfleetError) as caught:
            await fetched(home, blob, sha256(blob), sha256(GOOD_TAR))
        assert isinstance(caught.value, InvalidRequestError)
        assert caught.value.message.startswith(f"unpack layer {sha256(blob)}: ")
        assert left(home) == []
