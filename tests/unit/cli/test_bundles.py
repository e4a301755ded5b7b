"""Bundles as an enemy would make them: refused with a sentence, before a byte reaches the store."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from labfleet_cli.bundle_file import BundleReader, BundleWriter
from labfleet_cli.bundle_keys import BundleKeys
from labfleet_cli.bundle_layout import (
    INDEX,
    LAYOUT,
    LAYOUT_TEXT,
    SIGNATURE,
    Descriptor,
    Image,
    digest_of,
    in_oci_words,
    index_of,
    signature_text,
    split_name,
)
from labfleet_cli.bundles import import_images
from labfleet_cli.machine import MachineError
from labfleet_cli.registry_client import RegistryClient
from labfleet_proto.errors import InvalidRequestError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
Files = dict[str, bytes]


def descriptor(data: bytes, kind: str = "application/x") -> Descriptor:
    return Descriptor(kind, digest_of(data), len(data))


def row(each: Descriptor) -> dict[str, object]:
    return {"mediaType": each.media_type, "digest": each.digest, "size": each.size}


CONFIG, LAYER = b'{"os":"linux"}', b"layer" * 1000
BODY = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": row(descriptor(CONFIG)),
        "layers": [row(descriptor(LAYER))],
    }
).encode()
IMAGE = Image("course/spark", "v1", descriptor(BODY, MANIFEST))


def files(index: bytes | None = None) -> Files:
    """The members of a good bundle."""
    made = {LAYOUT: LAYOUT_TEXT, INDEX: index or index_of([IMAGE])}
    for data in (BODY, CONFIG, LAYER):
        made[descriptor(data).member] = data
    return made


def tar(members: Files, *more: tarfile.TarInfo) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in more:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return made.getvalue()


def check(data: bytes) -> tuple[Image, ...]:
    return BundleReader(io.BytesIO(data)).check().images


@pytest.fixture
def keys(tmp_path: Path) -> BundleKeys:
    return BundleKeys(tmp_path / "keys")


@pytest.fixture
def strangers(tmp_path: Path) -> BundleKeys:
    return BundleKeys(tmp_path / "strangers")


def signed(members: Files, keys: BundleKeys) -> Files:
    index = members[INDEX]
    return members | {SIGNATURE: signature_text(keys.own().fingerprint, keys.sign(index))}


def test_a_good_bundle_has_its_image() -> None:
    assert check(tar(files())) == (IMAGE,)


def test_a_dot_before_names_is_the_same_layout() -> None:
    assert check(tar({f"./{name}": data for name, data in files().items()})) == (IMAGE,)


def test_blobs_come_before_what_refers_to_them() -> None:
    contents = BundleReader(io.BytesIO(tar(files()))).check()
    assert [each.digest for _, each in contents.blobs] == [
        digest_of(data) for data in (CONFIG, LAYER, BODY)
    ]


def without(name: str) -> Callable[[], bytes]:
    return lambda: tar({key: data for key, data in files().items() if key != name})


def with_index(**changes: object) -> Callable[[], bytes]:
    document = json.loads(index_of([IMAGE]))
    document["manifests"][0] |= changes
    return lambda: tar(files(json.dumps(document).encode()))


def member(name: str, kind: bytes) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, "/etc/passwd"
    return made


def nested(depth: int) -> bytes:
    members, inner = files(), descriptor(BODY, MANIFEST)
    for _ in range(depth):
        body = json.dumps({"mediaType": OCI_INDEX, "manifests": [row(inner)]}).encode()
        inner = descriptor(body, OCI_INDEX)
        members[inner.member] = body
    members[INDEX] = index_of([Image("a", "b", inner)])
    return tar(members)


LAYER_FILE = descriptor(LAYER).member
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "no image layout|no tar"),
    "no tar": (lambda: b"PK\3\4" * 500, "no tar"),
    "no layout": (without(LAYOUT), "there is no oci-layout"),
    "no index": (without(INDEX), "there is no index.json"),
    "no layer": (without(LAYER_FILE), f"there is no {LAYER_FILE}"),
    "no manifest": (without(IMAGE.manifest.member), "there is no blobs"),
    "another layer": (lambda: tar(files() | {LAYER_FILE: LAYER[:-1] + b"X"}), "has other bytes"),
    "a shorter layer": (lambda: tar(files() | {LAYER_FILE: LAYER[:-1]}), "has other bytes"),
    "another manifest": (
        lambda: tar(files() | {IMAGE.manifest.member: BODY + b" "}),
        "has other bytes",
    ),
    "cut": (lambda: tar(files())[:4000], "no tar|ends within|there is no"),
    "a link": (lambda: tar(files(), member("x", tarfile.SYMTYPE)), "no plain file"),
    "a hard link": (lambda: tar(files(), member(LAYER_FILE, tarfile.LNKTYPE)), "no plain file"),
    "a device": (lambda: tar(files(), member("x", tarfile.CHRTYPE)), "no plain file"),
    "a name twice": (lambda: tar(files(), tarfile.TarInfo(INDEX)), "stands in it twice"),
    "an index that is no JSON": (lambda: tar(files(b"{")), "is no JSON"),
    "an index nested too deeply": (lambda: tar(files(b"[" * 100_000)), "is no JSON"),
    "an index that is a list": (lambda: tar(files(b"[]")), "is no object"),
    "an index of 5 MiB": (lambda: tar(files(b" " * (5 << 20))), "larger than"),
    "no images": (lambda: tar(files(b'{"manifests":[]}')), "names no images"),
    "no name": (with_index(annotations=None), "without a name"),
    "a name with dots": (
        with_index(annotations={"io.containerd.image.name": "../../v2/x:y"}),
        "no name of an image",
    ),
    "a name with a query": (
        with_index(annotations={"io.containerd.image.name": "x?y:z"}),
        "no name of an image",
    ),
    "a digest that is a path": (with_index(digest="sha256:../../etc"), "without sense"),
    "a negative size": (with_index(size=-1), "without sense"),
    "a size that is true": (with_index(size=True), "without sense"),
    "another size": (with_index(size=3), "has other bytes"),
    "what is no manifest": (with_index(mediaType="text/plain"), "what is no manifest"),
    "another media type": (with_index(mediaType=OCI_INDEX), "of another media type"),
    "indexes in indexes": (lambda: nested(5), "too deeply"),
}


@pytest.mark.parametrize(("make", "sentence"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_bundle_is_refused(make: Callable[[], bytes], sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        check(make())


def test_a_signature_is_of_a_believed_key(keys: BundleKeys) -> None:
    reader = BundleReader(io.BytesIO(tar(signed(files(), keys))))
    assert reader.signer(keys.believed()) == keys.own()


def test_a_strangers_key_is_believed_when_it_was_added(
    keys: BundleKeys, strangers: BundleKeys, tmp_path: Path
) -> None:
    bundle = tar(signed(files(), strangers))
    assert BundleReader(io.BytesIO(bundle)).signer(keys.believed()) is None
    (tmp_path / "North.pem").write_bytes(strangers.own().pem)
    keys.add(tmp_path / "North.pem", "")
    signer = BundleReader(io.BytesIO(bundle)).signer(keys.believed())
    assert signer is not None
    assert signer.name == "north"
    keys.remove("north")
    assert BundleReader(io.BytesIO(bundle)).signer(keys.believed()) is None


def test_another_key_does_not_take_a_name(
    keys: BundleKeys, strangers: BundleKeys, tmp_path: Path
) -> None:
    for name, each in (("a", strangers), ("b", keys)):
        (tmp_path / f"{name}.pem").write_bytes(each.own().pem)
    keys.add(tmp_path / "a.pem", "north")
    keys.add(tmp_path / "a.pem", "north")
    with pytest.raises(MachineError, match="another key is called north"):
        keys.add(tmp_path / "b.pem", "north")


@pytest.mark.parametrize("text", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nx\n"])
def test_what_is_no_key_is_not_believed(keys: BundleKeys, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "key.pem").write_bytes(text)
    with pytest.raises(MachineError, match="no public key"):
        keys.add(tmp_path / "key.pem", "north")


def test_an_index_that_was_changed_is_not_what_was_signed(keys: BundleKeys) -> None:
    members = signed(files(), keys) | {INDEX: index_of([IMAGE, IMAGE])}
    with pytest.raises(InvalidRequestError, match=r"not what this fleet .* signed"):
        BundleReader(io.BytesIO(tar(members))).signer(keys.believed())


@pytest.mark.parametrize("text", [b"", b"{}", b'{"key":"x","signature":"%"}', b"[]"])
def test_a_signature_without_sense_is_refused(keys: BundleKeys, text: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"^bundle: index\.json\.sig"):
        BundleReader(io.BytesIO(tar(files() | {SIGNATURE: text}))).signer(keys.believed())


@pytest.mark.parametrize(
    ("is_signed", "sentence"),
    [(False, "is not signed; --allow-unsigned"), (True, "that this fleet does not trust")],
)
def test_who_is_not_believed_is_refused_before_the_store_is_asked(
    keys: BundleKeys,
    strangers: BundleKeys,
    tmp_path: Path,
    is_signed: bool,  # noqa: FBT001
    sentence: str,
) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(tar(signed(files(), strangers) if is_signed else files()))
    with RegistryClient("http://nobody.invalid") as registry:
        with pytest.raises(MachineError, match=sentence):
            import_images(registry, path, keys, str, allow_unsigned=False)


def test_half_a_bundle_has_no_name(tmp_path: Path, keys: BundleKeys) -> None:
    def write() -> None:
        with BundleWriter(tmp_path / "b.tar") as bundle:
            bundle.begin([IMAGE], keys)
            bundle.add(descriptor(LAYER), io.BytesIO(LAYER[:10]))

    with pytest.raises(OSError, match="unexpected end"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize(
    ("name", "repository", "tag"),
    [
        ("spark", "spark", "latest"),
        ("docker.io/library/spark:3", "spark", "3"),
        ("course/spark:v1", "course/spark", "v1"),
        ("quay.io/a/b", "quay.io/a/b", "latest"),
        ("localhost:5000/a", "localhost:5000/a", "latest"),
    ],
)
def test_a_name_is_dockers(name: str, repository: str, tag: str) -> None:
    assert split_name(name) == (repository, tag)


def test_dockers_manifests_are_told_in_the_layouts_words() -> None:
    """Older readers of layouts pass over what has docker's media types."""
    layer = {
        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "digest": "a",
        "size": 1,
    }
    config = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": "b",
        "size": 2,
    }
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    body = json.dumps({"mediaType": kind, "config": config, "layers": [layer]}).encode()
    made, told = in_oci_words(descriptor(body, kind), body, {})
    document = json.loads(told)
    assert (made, document["mediaType"]) == (descriptor(told, MANIFEST), MANIFEST)
    assert document["config"] == config | {"mediaType": "application/vnd.oci.image.config.v1+json"}
    assert document["layers"] == [
        layer | {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    ]
    listed = {
        "mediaType": kind,
        "digest": digest_of(body),
        "size": len(body),
        "platform": {"os": "x"},
    }
    index = json.dumps({"manifests": [listed]}).encode()
    wanted = "application/vnd.docker.distribution.manifest.list.v2+json"
    made, told = in_oci_words(descriptor(index, wanted), index, {digest_of(body): descriptor(told)})
    assert made.media_type == OCI_INDEX
    assert json.loads(told)["manifests"][0]["platform"] == {"os": "x"}


def test_a_manifest_in_the_layouts_words_stays_as_it_is() -> None:
    assert in_oci_words(IMAGE.manifest, BODY, {}) == (IMAGE.manifest, BODY)
