"""Layers of a host: from other hosts first, each byte once from the image store if that is possible."""

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.farm.layer_hosts import SILENCE_S, LayerFarm, TestStore, image, layer, running_farm
from tests.farm.nats import NatsServer

from labfleet_chassis import pieces
from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.buckets import LAYER_COPIES
from labfleet_proto.errors import DigestMismatchError, LabfleetError, NotFoundError
from labfleet_proto.images import LayerRef
from labfleet_proto.layers import BlobState, ReadBlob
from labfleet_proto.streams import Ticket

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="unpacking needs root"),
]

MB = 1_000_000
Farm = Callable[[TestStore], AbstractAsyncContextManager[LayerFarm]]


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> NatsServer:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture
def farm(nats: NatsServer, tmp_path: Path) -> Farm:
    return lambda store: running_farm(nats.url, store, tmp_path)


async def together(*works: object) -> None:
    async with TaskGroup() as tasks:
        for work in works:
            tasks.create_task(work)  # type: ignore[arg-type]


async def test_twenty_containers_that_wait_for_a_layer_cause_one_fetch(farm: Farm) -> None:
    one = layer(MB)
    store = TestStore(one, bytes_per_s=4 * MB)
    async with farm(store) as there:
        host = await there.host("h1")
        await together(*(host.layers.ensure(image(one)) for _ in range(20)))
        assert store.ranges == [0]
        assert store.sent_bytes == len(one[1])
        (path,) = await host.layers.ensure(image(one))
        assert (path / "file").stat().st_size == MB


async def test_a_class_start_on_ten_hosts_costs_the_store_one_copy(farm: Farm) -> None:
    blobs = [layer(MB), layer(MB // 4)]
    store = TestStore(*blobs, bytes_per_s=2 * MB)
    async with farm(store) as there:
        there.silence_s = 10  # all of them are one process here
        hosts = [await there.host(f"h{number}") for number in range(10)]
        await together(*(host.layers.ensure(image(*blobs)) for host in hosts))
        assert store.sent_bytes == sum(len(blob) for _, blob in blobs)
        assert max(len(host.dialled) for host in hosts) <= 2 * len(blobs)  # nobody serves them all


async def test_what_a_host_has_is_told_and_served_to_the_next(farm: Farm) -> None:
    one = layer(MB)
    store = TestStore(one)
    async with farm(store) as there:
        first, second = await there.host("h1"), await there.host("h2")
        await first.layers.ensure(image(one))
        while (told := await there.copy_of("h1", one[0])) is None or not told.is_unpacked:
            await asyncio.sleep(0.01)
        assert told.blob is BlobState.WHOLE
        await second.layers.ensure(image(one))
        assert store.ranges == [0]
        assert first.dialled == [0]


@pytest.mark.parametrize("manner", ["stalls", "goes", "is mute", "knows nothing"])
async def test_a_peer_that_fails_is_left_at_once_and_the_store_goes_on(
    farm: Farm, manner: str
) -> None:
    ref, blob = one = layer(MB)
    store = TestStore(one)

    async def serve(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        if manner == "is mute":
            await asyncio.sleep(60)
        if manner == "knows nothing":
            raise NotFoundError("no such layer")
        await accept({"size": len(blob)})
        await pieces.send(stream, blob[:300_000])
        if manner == "stalls":
            await asyncio.sleep(60)

    async with farm(store) as there:
        await there.serve("bad", serve)
        await there.claim("bad", ref)
        host = await there.host("h1")
        began = asyncio.get_running_loop().time()
        await host.layers.ensure(image(one))
        assert asyncio.get_running_loop().time() - began < 3 + SILENCE_S
        came = 300_000 if manner in ("stalls", "goes") else 0
        assert store.ranges == [came]
        assert store.sent_bytes == len(blob) - came


async def test_a_peer_that_waits_itself_is_waited_for(farm: Farm) -> None:
    ref, blob = one = layer(MB)
    store = TestStore(one)

    async def serve(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        await accept({"size": len(blob)})
        for _ in range(4):
            await asyncio.sleep(SILENCE_S / 2)
            await pieces.send(stream, b"")
        await pieces.send(stream, blob[:MB])
        await pieces.send(stream, blob[MB:])

    async with farm(store) as there:
        await there.serve("slow", serve)
        await there.claim("slow", ref)
        await (await there.host("h1")).layers.ensure(image(one))
        assert store.ranges == []


@pytest.mark.parametrize("damage", ["a flipped bit", "other bytes"])
async def test_a_peer_that_lies_is_found_out_and_asked_no_more(farm: Farm, damage: str) -> None:
    ref, blob = one = layer(MB)
    other = layer(500_000)
    store = TestStore(one, other)
    asked: list[int] = []

    async def serve(ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        assert isinstance(ticket.request, ReadBlob)
        asked.append(ticket.request.first)
        wrong = bytearray(blob if damage == "a flipped bit" else os.urandom(len(blob)))
        wrong[len(wrong) // 2] ^= 1
        await accept({"size": len(wrong)})
        await pieces.send(stream, bytes(wrong))

    async with farm(store) as there:
        await there.serve("liar", serve)
        await there.claim("liar", ref)
        await there.claim("liar", other[0])
        host = await there.host("h1")
        (path,) = await host.layers.ensure(image(one))
        assert (path / "file").stat().st_size == MB
        assert store.sent_bytes == len(blob)
        await host.layers.ensure(image(other))
        assert asked == [0]
        assert not list((host.home / "layers.new").iterdir())


async def test_hosts_behind_a_lying_parent_get_the_layer_all_the_same(farm: Farm) -> None:
    ref, blob = one = layer(MB)
    store = TestStore(one)

    async def serve(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        await accept({"size": len(blob)})
        wrong = bytearray(blob)
        wrong[-100] ^= 1
        await pieces.send(stream, bytes(wrong))

    async with farm(store) as there:
        await there.serve("liar", serve)
        await there.claim("liar", ref)
        hosts = [await there.host(f"h{number}") for number in range(4)]
        await together(*(host.layers.ensure(image(one)) for host in hosts))
        for host in hosts:
            assert host.layers.is_here(ref)


async def test_a_lying_store_is_believed_by_nobody(farm: Farm) -> None:
    ref, blob = layer(1000)
    store = TestStore((ref, blob[:-1] + b"x"))
    async with farm(store) as there:
        host = await there.host("h1")
        with pytest.raises(LabfleetError):
            await host.layers.ensure(image((ref, blob)))
        assert not host.layers.is_here(ref)
        assert host.layers.blobs.whole() == set()
        copy = await there.copy_of("h1", ref)
        while copy is not None:
            await asyncio.sleep(0.01)
            copy = await there.copy_of("h1", ref)


async def test_an_image_that_lies_about_its_content_is_refused(farm: Farm) -> None:
    ref, blob = layer(1000)
    lie = LayerRef(**{**ref.model_dump(), "diff_id": f"sha256:{'0' * 64}"})
    async with farm(TestStore((ref, blob))) as there:
        host = await there.host("h1")
        with pytest.raises(DigestMismatchError, match="its diff_id is"):
            await host.layers.ensure(image((lie, blob)))


async def test_a_busy_peer_is_asked_again_before_the_store(farm: Farm) -> None:
    ref, blob = one = layer(MB)
    store = TestStore(one)
    asked = 0

    async def serve(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            await accept({"is_busy": True})
            return
        await accept({"size": len(blob)})
        await pieces.send(stream, blob[:MB])
        await pieces.send(stream, blob[MB:])

    async with farm(store) as there:
        await there.serve("busy", serve)
        await there.claim("busy", ref)
        await (await there.host("h1")).layers.ensure(image(one))
        assert store.ranges == []
        assert asked == 3


async def test_a_host_serves_no_more_than_it_may_and_says_so(farm: Farm) -> None:
    one = layer(MB)
    store = TestStore(one, bytes_per_s=2 * MB)
    async with farm(store) as there:
        there.uploads, there.silence_s = 1, 10
        hosts = [await there.host(f"h{number}") for number in range(6)]
        await together(*(host.layers.ensure(image(one)) for host in hosts))
        assert store.sent_bytes == len(one[1])


async def test_a_host_that_is_gone_is_not_called(farm: Farm) -> None:
    ref, _ = one = layer(1000)
    store = TestStore(one)
    async with farm(store) as there:
        await there.claim("gone", ref)
        await (await there.host("h1")).layers.ensure(image(one))
        assert store.ranges == [0]


async def test_a_host_that_keeps_no_blobs_claims_none(farm: Farm) -> None:
    ref, _ = one = layer(1000)
    store = TestStore(one)
    async with farm(store) as there:
        there.cache_bytes = 0
        host = await there.host("h1")
        await host.layers.ensure(image(one))
        while (told := await there.copy_of("h1", ref)) is None:
            await asyncio.sleep(0.01)
        assert told.blob is BlobState.NONE
        assert told.is_unpacked


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_an_evicted_layer_comes_from_its_blob_if_that_is_kept_and_whole(
    farm: Farm, *, is_damaged: bool
) -> None:
    ref, blob = one = layer(1000)
    store = TestStore(one)
    async with farm(store) as there:
        host = await there.host("h1")
        await host.layers.ensure(image(one))
        shutil.rmtree(host.layers.take_away(ref.diff_id.removeprefix("sha256:")))
        assert not host.layers.is_here(ref)
        if is_damaged:
            path = host.home / "blobs" / ref.digest.removeprefix("sha256:")
            path.write_bytes(blob[:-20] + b"x" * 20)
        await host.layers.ensure(image(one))
        assert host.layers.is_here(ref)
        assert store.ranges == ([0, 0] if is_damaged else [0])
        assert host.layers.blobs.whole() == {ref.digest}


async def test_a_new_life_of_a_host_tells_what_is_true(farm: Farm) -> None:
    ref, _ = one = layer(1000)
    async with farm(TestStore(one)) as there:
        host = await there.host("h1")
        await host.layers.ensure(image(one))
        await there.claim("h1", layer(10)[0], BlobState.PARTIAL)  # of a fetch that was killed
        shutil.rmtree(host.home / "blobs")
        again = await there.host("h1")
        assert again.layers.is_here(ref)
        while True:
            told = {claim.value.digest: claim.value for claim in await _all(there)}
            if set(told) == {ref.digest} and told[ref.digest].blob is BlobState.NONE:
                break
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_a_fetch_that_was_killed_goes_on_where_it_was(
    farm: Farm, tmp_path: Path, *, is_damaged: bool
) -> None:
    ref, blob = one = layer(MB)
    store = TestStore(one)
    part = tmp_path / "h1" / "blobs" / f"{ref.digest.removeprefix('sha256:')}.part"
    part.parent.mkdir(parents=True)
    part.with_name("boot").write_text("boot")
    part.write_bytes(os.urandom(300_000) if is_damaged else blob[:300_000])
    part.with_name(f"{part.stem}.0.part").write_bytes(b"of one that was not kept")
    async with farm(store) as there:
        host = await there.host("h1")
        assert host.layers.progress(image(one)) == (len(blob), 300_000)
        await host.layers.ensure(image(one))
        assert host.layers.is_here(ref)
        assert store.ranges == ([300_000, 0] if is_damaged else [300_000])
        assert {path.name for path in part.parent.iterdir()} == {"boot", part.stem}


async def test_nothing_goes_on_after_a_boot(farm: Farm, tmp_path: Path) -> None:
    ref, _ = one = layer(MB)
    store = TestStore(one)
    part = tmp_path / "h1" / "blobs" / f"{ref.digest.removeprefix('sha256:')}.part"
    part.parent.mkdir(parents=True)
    part.with_name("boot").write_text("earlier")
    part.write_bytes(b"x" * 1000)
    async with farm(store) as there:
        await (await there.host("h1")).layers.ensure(image(one))
        assert store.ranges == [0]


async def test_a_fetch_that_was_given_up_goes_on_where_it_was(farm: Farm) -> None:
    ref, blob = one = layer(4 * MB)
    store = TestStore(one, bytes_per_s=2 * MB)
    async with farm(store) as there:
        host = await there.host("h1")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await host.layers.ensure(image(one))
        came = host.layers.progress(image(one))[1]
        await host.layers.ensure(image(one))
        assert host.layers.is_here(ref)
        assert came > MB / 2
        assert store.ranges == [0, came]
        assert host.layers.blobs.used_bytes == len(blob)


async def test_begun_blobs_go_first_when_room_is_wanted(farm: Farm) -> None:
    one, other = layer(4 * MB), layer(1000)
    store = TestStore(one, other, bytes_per_s=2 * MB)
    async with farm(store) as there:
        host = await there.host("h1")
        blobs = host.layers.blobs
        await host.layers.ensure(image(other))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await host.layers.ensure(image(one))
        assert blobs.used_bytes > len(other[1])
        assert blobs.drop_oldest()
        assert blobs.used_bytes == len(other[1])
        assert blobs.drop_oldest()
        assert not blobs.drop_oldest()
        assert [path.name for path in (host.home / "blobs").iterdir()] == ["boot"]


async def _all(there: LayerFarm) -> list:
    return await (await there.bus.bucket(LAYER_COPIES)).entries("*.h1")
