"""OCI distribution-spec 1.1, end-1 to end-14, from its text: the fleet's registry beside Debian's docker-registry.

What the reference does not do is said in `docs/compatibility.md`; that table and this module agree.
"""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.farm.fleet import Fleet
from tests.farm.registries import other_registry

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_KIND = "application/vnd.oci.empty.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = {"Accept": f"{MANIFEST}, {INDEX}, {DOCKER}"}
REFERENCE = "docker-registry"
NEVER = f"sha256:{'0' * 64}"
_DIFFERENCE = re.compile(r"^\| `(test_\w+(?:\[[\w-]+\])?)` \| ([^|]+) \|$", re.MULTILINE)


def differences() -> set[str]:
    """What the reference does otherwise, as the page says."""
    section = PAGE.read_text().partition("### Beside docker-registry")[2].partition("\n## ")[0]
    return {name for name, _ in _DIFFERENCE.findall(section)}


@pytest.fixture(scope="module", params=["labfleet", REFERENCE])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of one registry or the other."""
    if request.param == "labfleet":
        fleet: Fleet = request.getfixturevalue("shared_fleet")
        with httpx.Client(base_url=fleet.plan.registry_url, timeout=30) as made:
            yield made
        return
    if shutil.which(REFERENCE) is None:
        pytest.skip("no docker-registry on this machine")
    with other_registry(tmp_path_factory.mktemp("reference") / "registry") as registry:
        with httpx.Client(base_url=registry.url, timeout=30) as made:
            yield made


@pytest.fixture(autouse=True)
def _as_the_page_says(request: pytest.FixtureRequest) -> None:
    """The reference must fail where the page says so, and nowhere else."""
    variant = request.node.callspec.params
    if variant.get("client") == REFERENCE:
        name = request.node.originalname
        inner = request.node.callspec.id.removeprefix(REFERENCE).strip("-")
        if name in differences() or f"{name}[{inner}]" in differences():
            request.applymarker(pytest.mark.xfail(strict=True))


@pytest.fixture
def name() -> str:
    """A repository that nobody has used."""
    return f"conform/{secrets.token_hex(6)}"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_error(answer: httpx.Response, status: int, code: str) -> None:
    """The form of the specification's errors, one of which has the code."""
    assert answer.status_code == status, answer.text
    errors = answer.json()["errors"]
    assert code in {each["code"] for each in errors}


def begin(client: httpx.Client, name: str, **query: str) -> str:
    """end-4a: where to send the blob."""
    answer = client.post(f"/v2/{name}/blobs/uploads/", params=query)
    assert answer.status_code == 202, answer.text
    return answer.headers["Location"]


def closing(client: httpx.Client, place: str, digest: str, **more: Any) -> httpx.Response:
    """end-6, whatever the location carries already."""
    url = httpx.URL(place).copy_merge_params({"digest": digest})
    return client.put(url, **more)


def push_blob(client: httpx.Client, name: str, data: bytes) -> str:
    digest = digest_of(data)
    answer = closing(client, begin(client, name), digest, content=data)
    assert answer.status_code == 201, answer.text
    return digest


def descriptor(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data), **more}


def manifest_of(
    client: httpx.Client, name: str, layers: int = 1, **more: Any
) -> tuple[bytes, list[str]]:
    """A manifest whose blobs are there; its bytes are unusual on purpose."""
    config = json.dumps({"made": secrets.token_hex(8)}).encode()
    parts = [secrets.token_bytes(100) for _ in range(layers)]
    for data in (config, *parts):
        push_blob(client, name, data)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [
            descriptor("application/vnd.oci.image.layer.v1.tar+gzip", data) for data in parts
        ],
        **more,
    }
    return json.dumps(document, indent=3).encode() + b"\n", [digest_of(each) for each in parts]


def put_manifest(
    client: httpx.Client, name: str, reference: str, body: bytes, kind: str = MANIFEST
) -> httpx.Response:
    """end-7."""
    return client.put(
        f"/v2/{name}/manifests/{reference}", content=body, headers={"Content-Type": kind}
    )


def push(client: httpx.Client, name: str, tag: str, **more: Any) -> tuple[bytes, str]:
    """An image under a tag; its manifest and the digest of it."""
    body, _ = manifest_of(client, name, **more)
    answer = put_manifest(client, name, tag, body)
    assert answer.status_code == 201, answer.text
    return body, digest_of(body)


# -- end-1


def test_end1_base(client: httpx.Client) -> None:
    assert client.get("/v2/").status_code == 200


# -- pull: end-2, end-3


def test_end2_blob_get_and_head(client: httpx.Client, name: str) -> None:
    data = secrets.token_bytes(5000)
    digest = push_blob(client, name, data)
    got = client.get(f"/v2/{name}/blobs/{digest}")
    assert (got.status_code, got.content) == (200, data)
    assert got.headers.get("Docker-Content-Digest", digest) == digest
    head = client.head(f"/v2/{name}/blobs/{digest}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == "5000"


def test_end2_blob_unknown(client: httpx.Client, name: str) -> None:
    check_error(client.get(f"/v2/{name}/blobs/{NEVER}"), 404, "BLOB_UNKNOWN")
    assert client.head(f"/v2/{name}/blobs/{NEVER}").status_code == 404


@pytest.mark.parametrize("digest", ["sha256:xyz", f"sha256:{'A' * 64}", "md5:0"])
def test_end2_digest_invalid(client: httpx.Client, name: str, digest: str) -> None:
    answer = client.get(f"/v2/{name}/blobs/{digest}")
    assert answer.status_code in (400, 404)
    assert answer.json()["errors"][0]["code"] in ("DIGEST_INVALID", "BLOB_UNKNOWN", "UNSUPPORTED")


@pytest.mark.parametrize(
    ("wanted", "span"),
    [("bytes=0-9", (0, 10)), ("bytes=990-", (990, 1000)), ("bytes=-10", (990, 1000)),
     ("bytes=990-2000", (990, 1000))],
    ids=["first", "rest", "last", "beyond"],
)  # fmt: skip
def test_end2_ranges(client: httpx.Client, name: str, wanted: str, span: tuple[int, int]) -> None:
    data = secrets.token_bytes(1000)
    digest = push_blob(client, name, data)
    answer = client.get(f"/v2/{name}/blobs/{digest}", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, data[span[0] : span[1]])
    assert answer.headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/1000"


def test_end2_range_outside(client: httpx.Client, name: str) -> None:
    digest = push_blob(client, name, b"short")
    answer = client.get(f"/v2/{name}/blobs/{digest}", headers={"Range": "bytes=100-"})
    assert answer.status_code == 416


def test_end3_manifest_comes_as_it_was_pushed(client: httpx.Client, name: str) -> None:
    body, digest = push(client, name, "v1", annotations={"unusual": "\u00e9\u4e2d"})
    for reference in ("v1", digest):
        got = client.get(f"/v2/{name}/manifests/{reference}", headers=ACCEPT)
        assert (got.status_code, got.content) == (200, body)
        assert got.headers["Content-Type"] == MANIFEST
        assert got.headers["Docker-Content-Digest"] == digest
        head = client.head(f"/v2/{name}/manifests/{reference}", headers=ACCEPT)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Docker-Content-Digest"] == digest
        assert head.headers["Content-Length"] == str(len(body))


def test_end3_manifest_unknown(client: httpx.Client, name: str) -> None:
    for reference in ("latest", NEVER):
        check_error(client.get(f"/v2/{name}/manifests/{reference}"), 404, "MANIFEST_UNKNOWN")
        assert client.head(f"/v2/{name}/manifests/{reference}").status_code == 404


# -- push of blobs: end-4, end-5, end-6, end-11, end-13, end-14


def test_end4_and_6_post_then_put(client: httpx.Client, name: str) -> None:
    data = secrets.token_bytes(3000)
    answer = closing(client, begin(client, name), digest_of(data), content=data)
    assert answer.status_code == 201
    assert client.get(answer.headers["Location"]).content == data


def test_end4b_single_post(client: httpx.Client, name: str) -> None:
    data = secrets.token_bytes(3000)
    digest = digest_of(data)
    answer = client.post(
        f"/v2/{name}/blobs/uploads/",
        params={"digest": digest},
        content=data,
        headers={"Content-Type": "application/octet-stream"},
    )
    if answer.status_code == 202:  # a registry may not support it; then it goes on by PUT
        answer = closing(client, answer.headers["Location"], digest, content=data)
    assert answer.status_code == 201
    assert client.get(answer.headers["Location"]).content == data


def test_end4b_single_post_is_done_at_once(client: httpx.Client, name: str) -> None:
    answer = client.post(
        f"/v2/{name}/blobs/uploads/", params={"digest": digest_of(b"data")}, content=b"data"
    )
    assert answer.status_code == 201


def test_end5_chunks(client: httpx.Client, name: str) -> None:
    data = secrets.token_bytes(2500)
    place = begin(client, name)
    for start in (0, 1000):
        span = {"Content-Range": f"{start}-{start + 999}", "Content-Length": "1000"}
        answer = client.patch(place, content=data[start : start + 1000], headers=span)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Range"] == f"0-{start + 999}"
        place = answer.headers["Location"]
    last = {"Content-Range": "2000-2499", "Content-Length": "500"}
    answer = closing(client, place, digest_of(data), content=data[2000:], headers=last)
    assert answer.status_code == 201
    assert client.get(answer.headers["Location"]).content == data


def test_end5_a_stream_of_one_chunk(client: httpx.Client, name: str) -> None:
    data = secrets.token_bytes(2500)

    def pieces() -> Iterator[bytes]:
        yield data[:1000]
        yield data[1000:]

    answer = client.patch(begin(client, name), content=pieces())
    assert answer.status_code == 202
    done = closing(client, answer.headers["Location"], digest_of(data))
    assert done.status_code == 201


@pytest.mark.parametrize("span", ["50-59", "0-9", "11-20"], ids=["gap", "again", "off"])
def test_end5_chunks_in_order_only(client: httpx.Client, name: str, span: str) -> None:
    first = client.patch(begin(client, name), content=b"x" * 10, headers={"Content-Range": "0-9"})
    assert first.status_code == 202
    place = first.headers["Location"]
    bad = client.patch(place, content=b"y" * 10, headers={"Content-Range": span})
    assert bad.status_code == 416
    there = client.get(place)
    assert there.headers["Range"] == "0-9"


def test_end5_the_first_chunk_begins_at_0(client: httpx.Client, name: str) -> None:
    answer = client.patch(
        begin(client, name), content=b"x" * 10, headers={"Content-Range": "10-19"}
    )
    assert answer.status_code == 416


def test_end6_wrong_digest(client: httpx.Client, name: str) -> None:
    answer = closing(client, begin(client, name), NEVER, content=b"other")
    check_error(answer, 400, "DIGEST_INVALID")
    assert client.head(f"/v2/{name}/blobs/{digest_of(b'other')}").status_code == 404


def test_end6_without_digest(client: httpx.Client, name: str) -> None:
    check_error(client.put(begin(client, name), content=b"x"), 400, "DIGEST_INVALID")


def test_end6_an_empty_blob(client: httpx.Client, name: str) -> None:
    digest = push_blob(client, name, b"")
    got = client.get(f"/v2/{name}/blobs/{digest}")
    assert (got.status_code, got.content) == (200, b"")


def test_end11_mount(client: httpx.Client, name: str) -> None:
    data = secrets.token_bytes(100)
    digest = push_blob(client, name, data)
    other = f"{name}-other"
    assert client.head(f"/v2/{other}/blobs/{digest}").status_code == 404
    answer = client.post(f"/v2/{other}/blobs/uploads/", params={"mount": digest, "from": name})
    assert answer.status_code == 201
    assert client.get(answer.headers["Location"]).content == data
    assert client.head(f"/v2/{other}/blobs/{digest}").status_code == 200


def test_end11_what_cannot_be_mounted_is_uploaded(client: httpx.Client, name: str) -> None:
    data = secrets.token_bytes(100)
    digest = digest_of(data)
    for source in ({"from": f"{name}-never"}, {}):
        place = begin(client, name, mount=digest, **source)
        assert closing(client, place, digest, content=data).status_code == 201
        client.delete(f"/v2/{name}/blobs/{digest}")


def test_end13_status_of_an_upload(client: httpx.Client, name: str) -> None:
    place = begin(client, name)
    answer = client.patch(place, content=b"x" * 10, headers={"Content-Range": "0-9"})
    there = client.get(answer.headers["Location"])
    assert there.status_code == 204
    assert there.headers["Range"] == "0-9"
    data = b"x" * 10 + b"y"
    done = closing(client, there.headers["Location"], digest_of(data), content=b"y")
    assert done.status_code == 201


def test_end14_cancel_an_upload(client: httpx.Client, name: str) -> None:
    place = begin(client, name)
    assert client.delete(place).status_code == 204
    check_error(client.get(place), 404, "BLOB_UPLOAD_UNKNOWN")
    check_error(client.patch(place, content=b"x"), 404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_of_another_repository_is_unknown(client: httpx.Client, name: str) -> None:
    place = begin(client, name)
    other = place.replace(name, f"{name}-other")
    assert client.get(other).status_code == 404


# -- push of manifests: end-7


def test_end7_put(client: httpx.Client, name: str) -> None:
    body, _ = manifest_of(client, name)
    answer = put_manifest(client, name, "v1", body)
    assert answer.status_code == 201
    assert answer.headers.get("Docker-Content-Digest", digest_of(body)) == digest_of(body)
    assert client.get(answer.headers["Location"], headers=ACCEPT).content == body
    again = put_manifest(client, name, digest_of(body), body)
    assert again.status_code == 201


def test_end7_a_tag_moves(client: httpx.Client, name: str) -> None:
    _, first = push(client, name, "moving")
    _, second = push(client, name, "moving")
    got = client.head(f"/v2/{name}/manifests/moving", headers=ACCEPT)
    assert got.headers["Docker-Content-Digest"] == second
    assert client.head(f"/v2/{name}/manifests/{first}", headers=ACCEPT).status_code == 200


def test_end7_digest_of_others(client: httpx.Client, name: str) -> None:
    body, _ = manifest_of(client, name)
    check_error(put_manifest(client, name, NEVER, body), 400, "DIGEST_INVALID")


def test_end7_blobs_must_be_there(client: httpx.Client, name: str) -> None:
    body, (layer,) = manifest_of(client, name)
    hollow = body.replace(layer.encode(), NEVER.encode())
    answer = put_manifest(client, name, "v1", hollow)
    assert answer.status_code in (400, 404)
    codes = {each["code"] for each in answer.json()["errors"]}
    assert codes & {"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"}


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[]", b'{"schemaVersion": 2}'],
    ids=["empty", "text", "array", "no-media-type"],
)
def test_end7_invalid_manifests(client: httpx.Client, name: str, body: bytes) -> None:
    check_error(put_manifest(client, name, "v1", body), 400, "MANIFEST_INVALID")


def test_end7_content_type_is_the_media_type(client: httpx.Client, name: str) -> None:
    body, _ = manifest_of(client, name)
    check_error(put_manifest(client, name, "v1", body, DOCKER), 400, "MANIFEST_INVALID")


def test_end7_four_mebibytes(client: httpx.Client, name: str) -> None:
    body, _ = manifest_of(client, name, annotations={"large": "x" * (4_000_000 - 1000)})
    assert put_manifest(client, name, "large", body).status_code == 201
    got = client.get(f"/v2/{name}/manifests/large", headers=ACCEPT)
    assert got.content == body


@pytest.mark.parametrize("bad", ["Upper", "a//b", "-a", "a_-b"])
def test_name_invalid(client: httpx.Client, bad: str) -> None:
    answer = client.post(f"/v2/{bad}/blobs/uploads/", follow_redirects=False)
    assert answer.status_code in (301, 400, 404)


def test_end7_index(client: httpx.Client, name: str) -> None:
    body, digest = push(client, name, "child")
    rows = [{"mediaType": MANIFEST, "digest": digest, "size": len(body)}]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}).encode()
    assert put_manifest(client, name, "many", index, INDEX).status_code == 201
    got = client.get(f"/v2/{name}/manifests/many", headers=ACCEPT)
    assert (got.content, got.headers["Content-Type"]) == (index, INDEX)
    empty = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    assert put_manifest(client, name, "none", empty, INDEX).status_code == 201


def test_end7_an_artifact_of_the_empty_config(client: httpx.Client, name: str) -> None:
    push_blob(client, name, b"{}")
    empty = descriptor(EMPTY_KIND, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/x.art",
        "config": empty,
        "layers": [empty],
    }
    assert put_manifest(client, name, "art", json.dumps(document).encode()).status_code == 201


# -- tags: end-8


def test_end8_tags_in_lexical_order(client: httpx.Client, name: str) -> None:
    body, _ = manifest_of(client, name)
    for tag in ("b", "a", "10", "9", "v1.0", "B"):
        assert put_manifest(client, name, tag, body).status_code == 201
    every = client.get(f"/v2/{name}/tags/list").json()
    assert every == {"name": name, "tags": sorted(("b", "a", "10", "9", "v1.0", "B"))}


def test_end8_pages(client: httpx.Client, name: str) -> None:
    body, _ = manifest_of(client, name)
    for tag in ("a", "b", "c"):
        put_manifest(client, name, tag, body)
    first = client.get(f"/v2/{name}/tags/list", params={"n": 2})
    assert first.json()["tags"] == ["a", "b"]
    following = first.links["next"]["url"]
    assert client.get(following).json()["tags"] == ["c"]
    last = client.get(f"/v2/{name}/tags/list", params={"n": 5, "last": "b"})
    assert last.json()["tags"] == ["c"]
    assert "next" not in last.links
    nothing = client.get(f"/v2/{name}/tags/list", params={"n": 0})
    assert (nothing.status_code, nothing.json()["tags"]) == (200, [])


def test_end8_no_tags_are_left(client: httpx.Client, name: str) -> None:
    _, digest = push(client, name, "v1")
    client.delete(f"/v2/{name}/manifests/{digest}")
    answer = client.get(f"/v2/{name}/tags/list")
    assert answer.status_code == 200
    assert not answer.json()["tags"]


def test_end8_name_unknown(client: httpx.Client, name: str) -> None:
    check_error(client.get(f"/v2/{name}/tags/list"), 404, "NAME_UNKNOWN")


# -- content management: end-9, end-10


def test_end9_delete_by_digest(client: httpx.Client, name: str) -> None:
    _, digest = push(client, name, "v1")
    _, other = push(client, name, "v2")
    assert client.delete(f"/v2/{name}/manifests/{digest}").status_code == 202
    for reference in ("v1", digest):
        gone = client.get(f"/v2/{name}/manifests/{reference}", headers=ACCEPT)
        check_error(gone, 404, "MANIFEST_UNKNOWN")
    assert client.head(f"/v2/{name}/manifests/{other}", headers=ACCEPT).status_code == 200
    assert client.delete(f"/v2/{name}/manifests/{digest}").status_code == 404


def test_end9_a_deleted_manifests_tag_is_no_tag(client: httpx.Client, name: str) -> None:
    _, digest = push(client, name, "v1")
    push(client, name, "v2")
    client.delete(f"/v2/{name}/manifests/{digest}")
    assert client.get(f"/v2/{name}/tags/list").json()["tags"] == ["v2"]


def test_end9_delete_a_tag(client: httpx.Client, name: str) -> None:
    _, digest = push(client, name, "v1")
    assert client.delete(f"/v2/{name}/manifests/v1").status_code == 202
    assert client.head(f"/v2/{name}/manifests/v1", headers=ACCEPT).status_code == 404
    assert client.head(f"/v2/{name}/manifests/{digest}", headers=ACCEPT).status_code == 200
    assert client.delete(f"/v2/{name}/manifests/v1").status_code == 404


def test_end10_delete_a_blob(client: httpx.Client, name: str) -> None:
    digest = push_blob(client, name, secrets.token_bytes(50))
    assert client.delete(f"/v2/{name}/blobs/{digest}").status_code == 202
    assert client.head(f"/v2/{name}/blobs/{digest}").status_code == 404
    check_error(client.delete(f"/v2/{name}/blobs/{digest}"), 404, "BLOB_UNKNOWN")


# -- referrers: end-12, and what clients do without


def _referrer(client: httpx.Client, name: str, subject: dict[str, Any], **more: Any) -> bytes:
    body, _ = manifest_of(client, name, subject=subject, **more)
    return body


@pytest.fixture
def subject(client: httpx.Client, name: str) -> dict[str, Any]:
    """Of manifests that refer to it."""
    body, _ = push(client, name, "subject")
    return descriptor(MANIFEST, body)


def test_end12_referrers(client: httpx.Client, name: str, subject: dict[str, Any]) -> None:
    place = f"/v2/{name}/referrers/{subject['digest']}"
    kinds = {"sbom": "application/x.sbom", "plain": None}
    bodies = {}
    for word, kind in kinds.items():
        more = {"artifactType": kind} if kind else {}
        bodies[word] = _referrer(client, name, subject, annotations={"word": word}, **more)
        answer = put_manifest(client, name, digest_of(bodies[word]), bodies[word])
        assert answer.status_code == 201
        assert answer.headers["OCI-Subject"] == subject["digest"]
    found = client.get(place)
    assert (found.status_code, found.headers["Content-Type"]) == (200, INDEX)
    index = found.json()
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
    rows = {row["digest"]: row for row in index["manifests"]}
    for word, body in bodies.items():
        row = rows[digest_of(body)]
        # Without an artifactType of its own it is the config's mediaType.
        assert row["artifactType"] == kinds[word] or row["artifactType"].endswith("config.v1+json")
        assert (row["mediaType"], row["size"]) == (MANIFEST, len(body))
        assert row["annotations"] == {"word": word}
    some = client.get(place, params={"artifactType": "application/x.sbom"})
    assert [each["digest"] for each in some.json()["manifests"]] == [digest_of(bodies["sbom"])]
    assert some.headers["OCI-Filters-Applied"] == "artifactType"
    client.delete(f"/v2/{name}/manifests/{digest_of(bodies['sbom'])}")
    assert len(client.get(place).json()["manifests"]) == 1


def test_end12_an_index_refers(client: httpx.Client, name: str, subject: dict[str, Any]) -> None:
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "artifactType": "application/x.set",
        "manifests": [],
        "subject": subject,
    }
    body = json.dumps(document).encode()
    assert put_manifest(client, name, digest_of(body), body, INDEX).status_code == 201
    (row,) = client.get(f"/v2/{name}/referrers/{subject['digest']}").json()["manifests"]
    assert (row["mediaType"], row["artifactType"]) == (INDEX, "application/x.set")


def test_end12_nothing_refers(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/v2/{name}/referrers/{NEVER}")
    assert (answer.status_code, answer.json()["manifests"]) == (200, [])


def test_end12_digest_invalid(client: httpx.Client, name: str) -> None:
    assert client.get(f"/v2/{name}/referrers/none").status_code == 400


def test_a_subject_need_not_be_there(client: httpx.Client, name: str) -> None:
    subject = {"mediaType": MANIFEST, "digest": NEVER, "size": 1}
    body = _referrer(client, name, subject)
    assert put_manifest(client, name, "early", body).status_code == 201


def test_the_tags_of_the_referrers_fallback(
    client: httpx.Client, name: str, subject: dict[str, Any]
) -> None:
    body = _referrer(client, name, subject)
    assert put_manifest(client, name, digest_of(body), body).status_code == 201
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, body)]}
    ).encode()
    tag = subject["digest"].replace(":", "-")
    assert put_manifest(client, name, tag, index, INDEX).status_code == 201
    assert client.get(f"/v2/{name}/manifests/{tag}", headers=ACCEPT).content == index


# -- what holds everywhere


def test_warnings_have_the_form_of_the_specification(client: httpx.Client, name: str) -> None:
    push(client, name, "v1")
    for path in ("/v2/", f"/v2/{name}/manifests/v1", f"/v2/{name}/tags/list"):
        for warning in client.get(path, headers=ACCEPT).headers.get_list("Warning"):
            assert re.fullmatch(r'299 - "[^"\x00-\x1f]{1,4096}"', warning)


def test_errors_are_json(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/v2/{name}/manifests/v1")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert all(re.fullmatch(r"[A-Z_]+", each["code"]) for each in answer.json()["errors"])
