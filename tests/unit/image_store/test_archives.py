"""Tars of images: what is written is read back, and nonsense is refused."""

import json

import pytest

from labfleet_image_store.core import archives
from labfleet_image_store.core.archives import SavedImage, digest_of
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import Digest

LAYER = Digest("sha256:" + "1" * 64)


def image(*names: str) -> SavedImage:
    config = b'{"rootfs": {}}'
    return SavedImage(digest_of(config), config, ((LAYER, 5),), names)


def test_docker_and_oci_find_the_same_image() -> None:
    members = archives.small_members([image("shelf/box:v1", "box:v2")])
    (entry,) = archives.docker_images(members["manifest.json"])
    assert entry.tags == ("shelf/box:v1", "box:v2")
    assert entry.layers == ("blobs/sha256/" + "1" * 64,)
    assert members[entry.config] == image().config
    index = json.loads(members["index.json"])
    names = [each.name for each in archives.laid_out_images(index)]
    assert names == ["docker.io/shelf/box:v1", "docker.io/library/box:v2"]
    manifest = members[archives.blob_member(index["manifests"][0]["digest"])]
    assert json.loads(manifest)["layers"][0]["digest"] == LAYER


def test_an_image_without_a_name_is_in_no_table_of_names() -> None:
    members = archives.small_members([image()])
    assert json.loads(members["manifest.json"])[0]["RepoTags"] is None
    assert "repositories" not in members


@pytest.mark.parametrize(
    "data",
    [b"", b"{}x", b"[1]", b'[{"Config": 1, "Layers": []}]', b'[{"Layers": []}]', b"[" * 9999],
)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"manifest.json is invalid"):
        archives.docker_images(data)
