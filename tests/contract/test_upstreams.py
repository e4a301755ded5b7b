"""What other registries may answer, and what the image store makes of it."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tests.farm.upstream import Answer, Asked, FakeUpstream

from labfleet_chassis import logs
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.tasks import TaskGroup
from labfleet_image_store.adapters import upstream_client
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.upstream_client import UpstreamClient
from labfleet_image_store.core.manifests import MOST_BYTES, OCI_INDEX, Descriptor
from labfleet_image_store.core.upstreams import Route, Trouble, Upstream, UpstreamError
from labfleet_image_store.service import fetching
from labfleet_image_store.service.fetching import Fetcher
from labfleet_image_store.service.upstreams import Upstreams
from labfleet_proto.errors import (
    LabfleetError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from labfleet_proto.upstreams import RegistryLogin

INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
LOGIN = RegistryLogin(username="ann", password="se:cret")
DATA = secrets.token_bytes(3_000_000)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def fake() -> Iterator[Callable[[Callable[[Asked], Answer]], FakeUpstream]]:
    made = []

    def make(answer: Callable[[Asked], Answer]) -> FakeUpstream:
        made.append(FakeUpstream(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[[Callable[[Asked], Answer]], FakeUpstream]


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient(SystemClock())
    yield made
    await made.close()


def _says(status: int, body: bytes = b"", **headers: str) -> Callable[[Asked], Answer]:
    return lambda _asked: (status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "words", "detail": None}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "headers", "trouble"),
    [
        (404, _error("MANIFEST_UNKNOWN"), {}, Trouble.ABSENT),
        (404, b"<html>", {}, Trouble.ABSENT),
        (401, b"", {}, Trouble.DENIED),
        (401, b"", {"WWW_Authenticate": "Basic realm=x"}, Trouble.DENIED),
        (403, _error("DENIED"), {}, Trouble.DENIED),
        (429, _error("TOOMANYREQUESTS"), {"Retry_After": "7"}, Trouble.LIMITED),
        (500, b"", {}, Trouble.FAILED),
        (200, b"no json", {}, Trouble.FAILED),
        (200, b"[" * 100_000, {}, Trouble.FAILED),
        (200, b"{}", {}, Trouble.FAILED),
        (200, b" " * (MOST_BYTES + 1), {}, Trouble.FAILED),
        (200, INDEX, {"Docker_Content_Digest": _digest(b"other")}, Trouble.FAILED),
        (200, INDEX, {"Content_Length": str(len(INDEX) + 5), "Connection": "close"},
         Trouble.FAILED),
        (302, b"", {"Location": "/v2/x/manifests/1"}, Trouble.FAILED),
        (302, b"", {"Location": "file:///etc/passwd"}, Trouble.FAILED),
    ],
)  # fmt: skip
async def test_bad_answers_to_a_manifests_question(
    fake: Make,
    client: UpstreamClient,
    status: int,
    body: bytes,
    headers: dict[str, str],
    trouble: Trouble,
) -> None:
    upstream = fake(_says(status, body, **headers))
    if "Connection" in headers:
        upstream.cut_after.append(len(INDEX) - 1)
    with pytest.raises(UpstreamError) as caught:
        await client.manifest(Upstream("a", upstream.url), "x", "1")
    assert caught.value.trouble is trouble
    if trouble is Trouble.LIMITED:
        assert caught.value.retry_after_s == 7


async def test_a_manifest_by_digest_has_that_digest(fake: Make, client: UpstreamClient) -> None:
    upstream = Upstream("a", fake(_says(200, INDEX, Content_Type="application/json")).url)
    found = await client.manifest(upstream, "x", _digest(INDEX))
    assert (found.digest, found.parsed.media_type) == (_digest(INDEX), OCI_INDEX)
    with pytest.raises(UpstreamError, match="the bytes of manifest"):
        await client.manifest(upstream, "x", _digest(b"other"))


@pytest.mark.parametrize(
    ("answer", "digest"),
    [((200, {"Docker-Content-Digest": _digest(INDEX)}, INDEX), _digest(INDEX)),
     ((200, {}, INDEX), ""), ((200, {"Docker-Content-Digest": "x"}, INDEX), ""),
     ((405, {}, b""), "")],
)  # fmt: skip
async def test_the_digest_of_a_tag_is_asked_for_alone(
    fake: Make, client: UpstreamClient, answer: Answer, digest: str
) -> None:
    upstream = fake(lambda _asked: answer)
    assert await client.head_manifest(Upstream("a", upstream.url), "x", "1") == digest
    assert [each.method for each in upstream.asked] == ["HEAD"]


async def test_nobody_there(client: UpstreamClient) -> None:
    with pytest.raises(UpstreamError) as caught:
        await client.manifest(Upstream("a", "http://127.0.0.1:1"), "x", "1")
    assert caught.value.trouble is Trouble.FAILED


# -- logins


async def test_a_token_is_fetched_once_for_a_scope(fake: Make, client: UpstreamClient) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/token?"):
            return 200, {}, b'{"access_token": "t1", "expires_in": 300}'
        if asked.headers.get("authorization") == "Bearer t1":
            return 200, {}, INDEX
        realm = f'Bearer realm="http://{asked.headers["host"]}/token",service="reg"'
        return 401, {"WWW-Authenticate": realm}, b""

    upstream = fake(answer)
    for _ in range(2):
        await client.manifest(Upstream("a", upstream.url, LOGIN), "lab/x", "1")
    tokens = [each for each in upstream.asked if "/token" in each.path]
    assert len(tokens) == 1
    query = dict(httpx.URL(tokens[0].path).params)
    assert query == {"service": "reg", "scope": "repository:lab/x:pull", "account": "ann"}
    assert tokens[0].headers["authorization"].startswith("Basic ")
    assert len(upstream.asked) == 4


async def test_an_identity_token_is_exchanged(fake: Make, client: UpstreamClient) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return 200, {}, b'{"token": "t2"}'
        if asked.headers.get("authorization") == "Bearer t2":
            return 200, {}, INDEX
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{asked.headers["host"]}/t"'}, b""

    upstream = fake(answer)
    login = RegistryLogin(identity_token="refresh-me")
    await client.manifest(Upstream("a", upstream.url, login), "x", "1")
    posted = next(each for each in upstream.asked if each.method == "POST")
    assert b"grant_type=refresh_token" in posted.body
    assert b"refresh_token=refresh-me" in posted.body


async def test_basic_is_sent_to_who_asks_for_it_only(fake: Make, client: UpstreamClient) -> None:
    elsewhere = fake(_says(200, DATA))

    def answer(asked: Asked) -> Answer:
        if "authorization" not in asked.headers:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return 307, {"Location": elsewhere.url.replace("127.0.0.1", "localhost") + "/there"}, b""

    upstream = fake(answer)
    async with client.blob(Upstream("a", upstream.url, LOGIN), "x", _digest(DATA), 0) as found:
        got = b"".join([data async for data in found.chunks])
    assert got == DATA
    assert "authorization" not in elsewhere.asked[0].headers


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [(401, b"", Trouble.DENIED), (500, b"", Trouble.FAILED), (200, b"{}", Trouble.FAILED),
     (200, b'{"token": "a\\nb"}', Trouble.FAILED), (200, b"[]", Trouble.FAILED)],
)  # fmt: skip
async def test_a_token_server_that_does_not_help(
    fake: Make, client: UpstreamClient, status: int, body: bytes, trouble: Trouble
) -> None:
    server = fake(_says(status, body))
    upstream = fake(_says(401, WWW_Authenticate=f'Bearer realm="{server.url}/t",service=a'))
    with pytest.raises(UpstreamError) as caught:
        await client.manifest(Upstream("a", upstream.url, LOGIN), "x", "1")
    assert caught.value.trouble is trouble


async def test_no_password_goes_to_another_machine_without_tls(
    fake: Make, client: UpstreamClient
) -> None:
    upstream = fake(_says(401, WWW_Authenticate='Bearer realm="http://elsewhere.invalid/t"'))
    with pytest.raises(UpstreamError, match="without TLS"):
        await client.manifest(Upstream("a", upstream.url, LOGIN), "x", "1")


async def test_tags_come_in_pages(fake: Make, client: UpstreamClient) -> None:
    def answer(asked: Asked) -> Answer:
        if "last=" in asked.path:
            return 200, {}, b'{"tags": ["c", "-bad", 3]}'
        link = '</v2/x/tags/list?last=b>; rel="next"'
        return 200, {"Link": link}, b'{"tags": ["a", "b"]}'

    assert await client.tags(Upstream("a", fake(answer).url), "x") == ["a", "b", "c"]
    with pytest.raises(UpstreamError):
        await client.tags(Upstream("a", fake(_says(200, b"[1]")).url), "x")


# -- blobs


class _NoRecords:
    def values(self) -> list[Any]:
        return []


@asynccontextmanager
async def _fetcher(
    folder: Path, client: UpstreamClient
) -> AsyncIterator[tuple[Fetcher, BlobFiles]]:
    log = logs.get("test")
    files = BlobFiles(folder)
    upstreams = Upstreams(cast("Any", _NoRecords()), client, SystemClock(), log)
    async with TaskGroup() as tasks:
        yield Fetcher(files, folder / "uploads", upstreams, tasks, log), files


def _blob(data: bytes = DATA) -> Descriptor:
    return Descriptor(media_type="application/x", digest=_digest(data), size=len(data))


def _route(*upstreams: FakeUpstream) -> Route:
    named = [Upstream(f"u{number}", each.url) for number, each in enumerate(upstreams)]
    return Route("docker.io", tuple(named), 0)


def _serving(data: bytes = DATA) -> Callable[[Asked], Answer]:
    def answer(asked: Asked) -> Answer:
        first = int(asked.headers.get("range", "bytes=0-")[6:].rstrip("-"))
        if first:
            span = f"bytes {first}-{len(data) - 1}/{len(data)}"
            return 206, {"Content-Range": span}, data[first:]
        return 200, {}, data

    return answer


async def test_a_blob_that_breaks_off_goes_on_elsewhere(
    fake: Make, client: UpstreamClient, tmp_path: Path
) -> None:
    first, second = fake(_serving()), fake(_serving())
    first.cut_after = [1_000_000]
    second.cut_after = [700_000]
    async with _fetcher(tmp_path, client) as (fetcher, files):
        await fetcher.fetch(_route(first, second), "lab/x", _blob(), "_.fetched/x")
        assert files.path_of(_digest(DATA)).read_bytes() == DATA
        assert files.has("_.fetched/x", _digest(DATA))
    assert second.asked[0].headers["range"] == "bytes=1000000-"
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_one_that_knows_no_ranges_is_read_from_the_start(
    fake: Make, client: UpstreamClient, tmp_path: Path
) -> None:
    first, second = fake(_serving()), fake(_says(200, DATA))
    first.cut_after = [1_000_000]
    async with _fetcher(tmp_path, client) as (fetcher, files):
        await fetcher.fetch(_route(first, second), "lab/x", _blob(), "r")
        assert files.path_of(_digest(DATA)).read_bytes() == DATA


@pytest.mark.parametrize(
    "bad",
    [DATA[:-1] + bytes([DATA[-1] ^ 1]), DATA + b"more", DATA[:-1], b""],
    ids=["flipped", "longer", "shorter", "empty"],
)
async def test_wrong_bytes_are_never_kept(
    fake: Make, client: UpstreamClient, tmp_path: Path, bad: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_PAUSE_S", 0.0)
    liar, honest = fake(_says(200, bad)), fake(_serving())
    async with _fetcher(tmp_path, client) as (fetcher, files):
        await fetcher.fetch(_route(liar, honest), "lab/x", _blob(), "r")
        assert files.path_of(_digest(DATA)).read_bytes() == DATA
    async with _fetcher(tmp_path / "second", client) as (fetcher, files):
        with pytest.raises(UnavailableError):
            await fetcher.fetch(_route(liar), "lab/x", _blob(), "r")
        assert not files.has("r", _digest(DATA))
        assert not files.path_of(_digest(DATA)).exists()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFoundError), (401, NotFoundError), (429, RateLimitedError), (500, UnavailableError)],
)
async def test_a_blob_that_nobody_has(
    fake: Make,
    client: UpstreamClient,
    tmp_path: Path,
    status: int,
    kind: type[LabfleetError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "_PAUSE_S", 0.0)
    async with _fetcher(tmp_path, client) as (fetcher, _):
        with pytest.raises(kind):
            await fetcher.fetch(_route(fake(_says(status))), "lab/x", _blob(), "r")


async def test_one_that_stands_still_is_left(
    fake: Make, client: UpstreamClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_client, "_TIMEOUT", httpx.Timeout(0.3))
    still = fake(lambda _asked: (200, {"Content-Length": str(len(DATA))}, DATA[:500_000]))
    async with _fetcher(tmp_path, client) as (fetcher, files):
        await fetcher.fetch(_route(still, fake(_serving())), "lab/x", _blob(), "r")
        assert files.has("r", _digest(DATA))


async def test_a_blob_is_fetched_once_for_all_who_wait(
    fake: Make, client: UpstreamClient, tmp_path: Path
) -> None:
    upstream, told = fake(_serving()), list[int]()

    async def tell(current: int) -> None:
        told.append(current)

    async with _fetcher(tmp_path, client) as (fetcher, files):
        async with TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(
                    fetcher.fetch(_route(upstream), "lab/x", _blob(), f"r{number}", tell)
                )
        assert all(files.has(f"r{number}", _digest(DATA)) for number in range(5))
        await fetcher.fetch(_route(upstream), "lab/x", _blob(), "r1")
    assert len(upstream.asked) == 1
    assert told[-1] == len(DATA)


async def test_what_nobody_waits_for_is_given_up_and_taken_up_again(
    fake: Make, client: UpstreamClient, tmp_path: Path
) -> None:
    half = len(DATA) // 2
    slow = fake(lambda _asked: (200, {"Content-Length": str(len(DATA))}, DATA[:half]))
    async with _fetcher(tmp_path, client) as (fetcher, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await fetcher.fetch(_route(slow), "lab/x", _blob(), "r")
    good = fake(_serving())
    async with _fetcher(tmp_path, client) as (fetcher, files):
        await fetcher.fetch(_route(good), "lab/x", _blob(), "r")
        assert files.has("r", _digest(DATA))
    assert good.asked[0].headers["range"] == f"bytes={half}-"
