"""A store whose disk changes what it holds: found, set aside, told, and healed."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.farm.fleet import until
from tests.farm.lone_store import LoneStore, lone_store
from tests.farm.store_worker import digest_of

from labfleet_chassis import bus as bus_module
from labfleet_chassis import logs
from labfleet_chassis.clock import SystemClock
from labfleet_proto.ids import OPERATORS
from labfleet_proto.message import Nothing
from labfleet_proto.scrubbing import CHECK_IMAGES, SCRUB_STATE, START_SCRUB, ScrubState

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
