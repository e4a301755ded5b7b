"""Manifests: valid documents of both families, and the rule that each invalid one breaks."""

import json
from typing import Any

import pytest

from labfleet_image_store.core.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MOST_LAYERS,
    OCI_INDEX,
    OCI_MANIFEST,
    for_platform,
    layer_refs,
    parse,
)
from labfleet_proto.errors import InvalidRequestError

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def descriptor(number: int, media_type: str = OCI_LAYER, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(number), "size": 7, **fields}


def image(**fields: Any) -> dict[str, Any]:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(1, OCI_CONFIG),
        "layers": [descriptor(2), descriptor(3)],
        **fields,
    }
    return {name: value for name, value in document.items() if value is not None}


def index(*children: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children), **fields}


def child(number: int, architecture: str = "", system: str = "linux") -> dict[str, Any]:
    platform = {"platform": {"architecture": architecture, "os": system}} if architecture else {}
    return descriptor(number, OCI_MANIFEST, **platform)


def dump(document: object) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("document", "content_type", "media_type"),
    [
        (image(), OCI_MANIFEST, OCI_MANIFEST),
        (image(), "", OCI_MANIFEST),
        (image(), OCI_MANIFEST.upper() + "; charset=utf-8", OCI_MANIFEST),
        (image(mediaType=None), "", OCI_MANIFEST),
        (image(mediaType=None), OCI_MANIFEST, OCI_MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (image(layers=[]), OCI_MANIFEST, OCI_MANIFEST),
        (image(layers=[descriptor(n) for n in range(MOST_LAYERS)]), "", OCI_MANIFEST),
        (image(unknown={"a": 1}), "", OCI_MANIFEST),
        (index(), OCI_INDEX, OCI_INDEX),
        (index(child(1)), OCI_INDEX, OCI_INDEX),
        (index(child(1), mediaType=None), "", OCI_INDEX),
        (index(child(1), mediaType=DOCKER_LIST), DOCKER_LIST, DOCKER_LIST),
    ],
)
def test_a_valid_document_is_taken(
    document: dict[str, Any], content_type: str, media_type: str
) -> None:
    assert parse(dump(document), content_type).media_type == media_type


@pytest.mark.parametrize(
    ("document", "content_type", "words"),
    [
        (image(schemaVersion=1), "", "schemaVersion is 1, not 2"),
        (image(schemaVersion="2"), "", "schemaVersion"),
        (image(config=None), "", "config is missing"),
        (image(layers=None), "", "layers is missing"),
        (image(manifests=[]), "", "an image manifest has no manifests"),
        (image(layers=[descriptor(n) for n in range(MOST_LAYERS + 1)]), "", "128 layers"),
        (image(), DOCKER_MANIFEST, "but Content-Type is"),
        (image(mediaType="application/json"), "", "media type application/json is not taken"),
        (image(mediaType=None), "text/html", "media type text/html is not taken"),
        (image(config=descriptor(1, OCI_CONFIG, digest="sha256:ab")), "", "config.digest"),
        (image(config=descriptor(1, OCI_CONFIG, digest="md5:" + "0" * 32)), "", "config.digest"),
        (image(config=descriptor(1, OCI_CONFIG, size=-1)), "", "config.size"),
        (image(config=descriptor(1, OCI_CONFIG, size="7")), "", "config.size"),
        (image(config=descriptor(1, "")), "", "config.mediaType"),
        (image(layers=[descriptor(2), {"size": 1}]), "", "layers.1.mediaType"),
        (image(layers={"a": 1}), "", "layers"),
        (image(annotations={"a": 1}), "", "annotations.a"),
        (image(subject={"digest": digest(1)}), "", "subject.mediaType"),
        (index(mediaType=OCI_INDEX, config=descriptor(1)), "", "an index has no config"),
        (index(layers=[]), "", "an index has no config and no layers"),
        ({"schemaVersion": 2, "mediaType": OCI_INDEX}, "", "manifests is missing"),
        ({"mediaType": OCI_MANIFEST}, "", "schemaVersion"),
        ([], "", "document"),
        (None, "", "document"),
    ],
)
def test_an_invalid_document_is_refused_by_its_rule(
    document: object, content_type: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match="manifest invalid") as caught:
        parse(dump(document), content_type)
    assert words in caught.value.message


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_document_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="manifest invalid: document"):
        parse(data, OCI_MANIFEST)


def test_a_document_that_is_both_is_refused_whatever_it_is_called() -> None:
    """CVE-2021-41190."""
    both = {**image(mediaType=None), "manifests": [child(5)]}
    for content_type in (OCI_MANIFEST, OCI_INDEX, ""):
        with pytest.raises(InvalidRequestError):
            parse(dump(both), content_type)


def test_blobs_are_the_config_and_the_layers_that_are_not_foreign() -> None:
    manifest = parse(dump(image(layers=[descriptor(2), descriptor(3, FOREIGN)])), "")
    assert manifest.blobs == [digest(1), digest(2)]
    assert parse(dump(index(child(5))), "").blobs == []


@pytest.mark.parametrize(
    ("fields", "artifact_type"), [({"artifactType": "a/b"}, "a/b"), ({}, OCI_CONFIG)]
)
def test_an_artifact_says_what_it_is_and_of_what(
    fields: dict[str, Any], artifact_type: str
) -> None:
    subject = descriptor(9, OCI_MANIFEST)
    manifest = parse(dump(image(subject=subject, annotations={"k": "v"}, **fields)), "")
    assert manifest.artifact_type == artifact_type
    assert manifest.subject == digest(9)
    assert manifest.annotations == {"k": "v"}


@pytest.mark.parametrize(
    ("children", "number"),
    [
        ((child(1, "arm64"), child(2, "amd64")), 2),
        ((child(1, "amd64", "windows"), child(2, "amd64")), 2),
        ((child(1),), 1),
        ((child(1, "arm64"),), None),
        ((child(1), child(2)), None),
        ((), None),
    ],
)
def test_the_child_of_a_platform(children: tuple[dict[str, Any], ...], number: int | None) -> None:
    found = for_platform(parse(dump(index(*children)), ""), "amd64")
    assert found == (None if number is None else digest(number))


def test_layers_have_their_diff_ids_base_first() -> None:
    refs = layer_refs(parse(dump(image()), ""), [digest(12), digest(13)])
    assert [(ref.digest, ref.diff_id) for ref in refs] == [
        (digest(2), digest(12)),
        (digest(3), digest(13)),
    ]
    assert refs[0].media_type == OCI_LAYER
    assert refs[0].size_bytes == 7


def test_a_config_that_names_other_layers_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="has 2 layers, but its config names 1"):
        layer_refs(parse(dump(image()), ""), [digest(12)])
