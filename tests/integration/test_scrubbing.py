"""A store whose disk changes what it holds: found, set aside, told, and healed."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import until
from tests.farm.layer_hosts import KEY, LayerFarm, TestStore
from tests.farm.lone_store import LoneStore, lone_store
from tests.farm.store_worker import digest_of, push_image

from labfleet_chassis import bus as bus_module
from labfleet_chassis import logs, pieces
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_proto.ids import OPERATORS, Digest
from labfleet_proto.images import LayerRef
from labfleet_proto.layers import BlobState
from labfleet_proto.message import Nothing
from labfleet_proto.scrubbing import CHECK_IMAGES, SCRUB_STATE, START_SCRUB, ScrubState
from labfleet_proto.streams import Ticket

PIECE = 4 << 20
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LoneStore]:
    with lone_store(tmp_path / "store", tmp_path / "log") as made:
        yield made


def _flip(store: LoneStore, digest: str, at: int = 100) -> None:
    name = digest.removeprefix("sha256:")
    with (store.images / "blobs" / "sha256" / name[:2] / name).open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def _push(client: httpx.Client, data: bytes) -> str:
    digest = digest_of(data)
    sent = client.post("/web/blobs/uploads/", params={"digest": digest}, content=data)
    assert sent.status_code == httpx.codes.CREATED, sent.text
    return digest


def _call(store: LoneStore, kind: object) -> object:
    async def ask() -> object:
        async with bus_module.connect(
            store.nats_url, "", name="test", clock=SystemClock(), log=logs.get("test")
        ) as bus:
            return await bus.call(kind, Nothing(), tenant=OPERATORS, subject="blobs")

    return asyncio.run(ask())


def _scrub(store: LoneStore) -> ScrubState:
    number = _call(store, START_SCRUB).number
    states = []

    def is_over() -> bool:
        states.append(_call(store, SCRUB_STATE))
        return states[-1].is_over and states[-1].number >= number

    until(is_over, 60)
    return states[-1]


def _findings(store: LoneStore) -> tuple[str, ...]:
    return _call(store, CHECK_IMAGES).findings


def test_damage_is_found_told_survives_a_restart_and_ends_with_a_push(store: LoneStore) -> None:
    data = os.urandom(2 * PIECE + 5)
    with store.client() as client:
        kept, hurt = _push(client, os.urandom(1000)), _push(client, data)
        whole = _scrub(store)
        assert (whole.blobs, whole.bytes_read, whole.found) == (2, 1000 + len(data), ())
        _flip(store, hurt, PIECE + 9)
        found = _scrub(store)
        assert found.found == (hurt,)
        assert [(each.digest, each.repositories) for each in found.damaged] == [(hurt, ("web",))]
        assert client.get(f"/web/blobs/{hurt}").status_code == httpx.codes.NOT_FOUND
        assert client.head(f"/web/blobs/{hurt}").status_code == httpx.codes.NOT_FOUND
        assert client.get(f"/web/blobs/{kept}").is_success
        mount = {"mount": hurt, "from": "web"}
        asked = client.post("/other/blobs/uploads/", params=mount)
        assert asked.status_code == httpx.codes.ACCEPTED  # send it: there is nothing to mount
        store.restart()
        assert f"blob {hurt} of web is damaged" in _findings(store)[0]
        assert "blob.damaged" in store.log.read_text()
        _push(client, data)
        assert client.get(f"/web/blobs/{hurt}").content == data
    until(lambda: "blob.healed" in store.log.read_text(), 60)
    assert _findings(store) == ()
    assert _scrub(store).damaged == ()


def test_a_blob_found_damaged_while_it_is_read_is_not_given_to_its_end(store: LoneStore) -> None:
    data = os.urandom(64 << 20)
    with store.client() as client:
        digest = _push(client, data)
        with store.client() as slow, slow.stream("GET", f"/web/blobs/{digest}") as answer:
            link = answer.extensions["network_stream"].get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            pieces = answer.iter_raw(65536)
            next(pieces)
            _flip(store, digest)
            assert _scrub(store).found == (digest,)
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)


def test_a_slow_pass_goes_on_after_a_restart(tmp_path: Path) -> None:
    pace = {"SCRUB_BYTES_PER_S": 4 << 20, "SCRUB_EVERY_S": 3600}
    with lone_store(tmp_path / "store", tmp_path / "log", **pace) as store:
        with store.client() as client:
            for _ in range(8):
                _push(client, os.urandom(1 << 20))
        memory = store.images / "scrub.json"
        memory.unlink(missing_ok=True)  # the empty store was read through as it began
        store.restart()
        until(memory.exists)
        assert '"is_over": false' in memory.read_text()
        last = memory.read_text()
        store.restart()
        until(lambda: '"is_over": true' in memory.read_text(), 60)
        assert last.split('"last"')[0] in memory.read_text()  # the same pass
        read = [line for line in store.log.read_text().splitlines() if "scrub.done" in line][-1]
        assert '"blobs": 8' not in read


class Keepers:
    """Hosts that say they keep a layer, and do each as its name says."""

    def __init__(self, farm: LayerFarm, blob: bytes) -> None:
        self._farm = farm
        self._blob = blob
        digest = Digest(digest_of(blob))
        self.layer = LayerRef(digest=digest, diff_id=digest, media_type="", size_bytes=len(blob))
        self.asked: list[str] = []

    async def add(self, *names: str) -> None:
        """Let some be there, alive for fifteen seconds."""
        for name in names:
            await self._farm.serve(name, self._serve)
            state = BlobState.PARTIAL if name == "partial" else BlobState.WHOLE
            await self._farm.claim(name, self.layer, state)

    async def _serve(self, ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        name = ticket.host
        self.asked.append(name)
        if name == "busy":
            await accept({"is_busy": True})
            return
        if name == "mute":
            await asyncio.sleep(60)
        wrong = bytearray(self._blob)
        wrong[len(wrong) // 2] ^= 1
        await accept({"size": len(self._blob) + (name == "other")})
        for start in range(0, len(wrong), 1 << 18):
            data = (wrong if name == "lying" else self._blob)[start : start + (1 << 18)]
            await pieces.send(stream, bytes(data))
            if name == "stalling":
                await asyncio.sleep(60)
            if name == "gone":
                return


@contextlib.asynccontextmanager
async def keepers(store: LoneStore, blob: bytes) -> AsyncIterator[Keepers]:
    """Hosts beside a store by itself."""
    async with bus_module.connect(
        store.nats_url, "", name="test", clock=SystemClock(), log=logs.get("test")
    ) as bus:
        farm = LayerFarm(bus, TestStore(), store.home)
        try:
            yield Keepers(farm, blob)
        finally:
            await farm.close()


async def test_one_host_after_another_is_asked_until_one_gives_the_blob_whole(
    tmp_path: Path,
) -> None:
    blob = os.urandom(1_000_000)
    settings = {"DATA_KEY": KEY.hex(), "HOST_SILENCE_S": 0.5}
    with lone_store(tmp_path / "store", tmp_path / "log", **settings) as store:
        with store.client() as client:
            push_image(client, "web", "1", (b"{}", blob))
        async with keepers(store, blob) as hosts:
            bad = ("busy", "gone", "lying", "mute", "other", "stalling")
            await hosts.add(*bad, "partial")
            _flip(store, hosts.layer.digest)
            found = await asyncio.to_thread(_scrub, store)
            assert [each.digest for each in found.damaged] == [hosts.layer.digest]
            assert tuple(hosts.asked[: len(bad)]) == bad
            assert list((store.images / "uploads").iterdir()) == []
            await hosts.add("whole")
            with store.client() as client:
                url = f"/web/blobs/{hosts.layer.digest}"

                def comes() -> bool:
                    answer = client.get(url)
                    return answer.is_success and answer.content == blob

                await asyncio.to_thread(until, comes, 30)
        assert "partial" not in hosts.asked
        assert hosts.asked[-1] == "whole"
        log = store.log.read_text()
        assert all(f'"host": "{name}"' in log for name in bad)
        brought = [line for line in log.splitlines() if "blob.brought" in line]
        assert len(brought) == 1
        assert '"source": "host"' in brought[0]
        assert list((store.images / "uploads").iterdir()) == []
        assert await asyncio.to_thread(_findings, store) == ()
