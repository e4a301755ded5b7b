"""Layers go when the disk fills up, by least use, and never while something needs them."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.farm.layer_hosts import LayerFarm, LayerHost, TestStore, image, layer
from tests.farm.nats import NatsServer

from labfleet_chassis import bus as chassis_bus
from labfleet_chassis import logs
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import DiskFullError
from labfleet_proto.images import ImagePin
from labfleet_runtime_agent.adapters import kernel, layer_store
from labfleet_runtime_agent.core.eviction import Disk
from labfleet_runtime_agent.service.eviction import Eviction
from labfleet_runtime_agent.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="unpacking needs root"),
]

SIZE = 100_000


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("file") if path.is_file())


@dataclass
class Room:
    """A host on a small disk, and the containers on it."""

    farm: LayerFarm
    host: LayerHost
    settings: Settings
    total_bytes: int = 10 * SIZE
    users: dict[str, ImagePin] = field(default_factory=dict)
    eviction: Eviction = field(init=False)

    def __post_init__(self) -> None:
        self.eviction = Eviction(
            self.host.layers, self.in_use, self.settings, logs.get("test"), self.disk
        )

    def in_use(self) -> set[str]:
        return {
            each.diff_id.removeprefix("sha256:")
            for pin in self.users.values()
            for each in pin.layers
        }

    def disk(self, _path: Path) -> Disk:
        """As full as its layers make it."""
        layers = self.host.home / "layers"
        used = size_of(layers) + self.host.layers.blobs.used_bytes
        return Disk(self.total_bytes, self.total_bytes - used)

    def here(self, pins: list[ImagePin]) -> list[int]:
        return [
            number
            for number, pin in enumerate(pins)
            if all(self.host.layers.is_here(each) for each in pin.layers)
        ]


@contextlib.asynccontextmanager
async def room(
    nats: NatsServer, home: Path, store: TestStore, cache_bytes: int = 0
) -> AsyncIterator[Room]:
    log, clock = logs.get("test"), SystemClock()
    async with (
        store.listening(),
        chassis_bus.connect(nats.url, "", name="test", clock=clock, log=log) as bus,
        asyncio.timeout(30),
    ):
        farm = LayerFarm(bus, store, home, cache_bytes=cache_bytes)
        try:
            host = await farm.host("h1")
            settings = Settings(
                host="h1", data_key="00", state_dir=host.home, run_dir=home, nats_url=nats.url
            )
            yield Room(farm, host, settings)
        finally:
            await farm.close()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> NatsServer:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_store, "_DISK_RESERVE_BYTES", 0)


def aged(there: Room, pin: ImagePin, at_s: float) -> None:
    """Let an image's last use be some time ago."""
    for path in (there.host.home / "layers.proved").iterdir():
        if any(path.name.endswith(each.diff_id.removeprefix("sha256:")) for each in pin.layers):
            os.utime(path, (at_s, at_s))


async def test_the_least_used_images_go_until_the_low_mark(
    nats: NatsServer, tmp_path: Path
) -> None:
    blobs = [layer(SIZE) for _ in range(9)]
    pins = [image(each) for each in blobs]
    async with room(nats, tmp_path, TestStore(*blobs)) as there:
        for number, pin in enumerate(pins):
            await there.host.layers.ensure(pin)
            there.host.layers.note_use(set())
            aged(there, pin, 1000.0 + number)
        aged(there, pins[0], 2000.0)  # the first was used again
        there.users["stopped"] = pins[1]
        await there.eviction.look()  # 90 % of use: down to 75 %
        assert there.here(pins) == [0, 1, 4, 5, 6, 7, 8]
        assert not list((there.host.home / "layers.new").iterdir())
        (gone,) = pins[2].layers
        while await there.farm.copy_of("h1", gone) is not None:
            await asyncio.sleep(0.01)
        await there.host.layers.ensure(pins[2])  # it comes back when it is needed
        assert 2 in there.here(pins)


async def test_below_the_high_mark_everything_stays(nats: NatsServer, tmp_path: Path) -> None:
    blobs = [layer(SIZE) for _ in range(8)]
    pins = [image(each) for each in blobs]
    async with room(nats, tmp_path, TestStore(*blobs)) as there:
        for pin in pins:
            await there.host.layers.ensure(pin)
        await there.eviction.look()
        assert there.here(pins) == list(range(8))


async def test_blobs_for_others_go_before_any_layer(nats: NatsServer, tmp_path: Path) -> None:
    blobs = [layer(SIZE) for _ in range(5)]
    pins = [image(each) for each in blobs]
    async with room(nats, tmp_path, TestStore(*blobs), cache_bytes=1 << 30) as there:
        for pin in pins:
            await there.host.layers.ensure(pin)
        await there.eviction.look()  # 100 %
        assert there.here(pins) == list(range(5))
        assert there.host.layers.blobs.used_bytes < 3 * SIZE


async def test_the_last_use_outlives_the_agent(nats: NatsServer, tmp_path: Path) -> None:
    blobs = [layer(SIZE) for _ in range(9)]
    pins = [image(each) for each in blobs]
    async with room(nats, tmp_path, TestStore(*blobs)) as there:
        for pin in pins:
            await there.host.layers.ensure(pin)
            aged(there, pin, 1000.0)
        there.host.layers.note_use(set())  # all of them were started just now
        for pin in pins[:6]:
            aged(there, pin, 1000.0)
        again = Room(there.farm, await there.farm.host("h1"), there.settings)
        await again.eviction.look()
        assert len(again.here(pins)) == 7
        assert {6, 7, 8} < set(again.here(pins))


async def test_what_is_mounted_stays_whoever_mounted_it(nats: NatsServer, tmp_path: Path) -> None:
    blobs = [layer(SIZE) for _ in range(9)]
    pins = [image(each) for each in blobs]
    async with room(nats, tmp_path, TestStore(*blobs)) as there:
        for pin in pins:
            await there.host.layers.ensure(pin)
        there.host.layers.note_use(set())
        aged(there, pins[3], 1.0)
        target = tmp_path / "mounted"
        target.mkdir()
        tree = kernel.clone_mount(there.host.layers.path_of(pins[3].layers[0]))
        kernel.attach_mount(tree, target)
        os.close(tree)
        try:
            await there.eviction.look()
            assert 3 in there.here(pins)
        finally:
            kernel.unmount(target)


async def test_a_fetch_makes_itself_room(nats: NatsServer, tmp_path: Path) -> None:
    blobs = [layer(SIZE) for _ in range(9)]
    pins = [image(each) for each in blobs]
    async with room(nats, tmp_path, TestStore(*blobs)) as there:
        for pin in pins[:8]:
            await there.host.layers.ensure(pin)
        assert await there.host.layers.make_room(4 * SIZE)
        assert len(there.here(pins)) == 6
        there.users = {str(number): pin for number, pin in enumerate(pins)}
        assert not await there.host.layers.make_room(8 * SIZE)
        assert len(there.here(pins)) == 6


async def test_a_full_disk_refuses_when_all_is_in_use(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = layer(SIZE)
    monkeypatch.setattr(layer_store, "_DISK_RESERVE_BYTES", 1 << 60)
    async with room(nats, tmp_path, TestStore(one)) as there:
        with pytest.raises(DiskFullError, match="MiB free"):
            await there.host.layers.ensure(image(one))


async def test_starts_and_evictions_side_by_side_never_miss_a_layer(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Each container says that it is there, makes its layers present, and looks at them for a while."""
    blobs = [layer(SIZE) for _ in range(12)]
    chance = random.Random(4)
    store = TestStore(*blobs)
    async with room(nats, tmp_path, store) as there:
        pins = [image(*chance.sample(blobs, 3)) for _ in range(8)]
        is_over = False

        async def evict() -> None:
            while not is_over:
                await there.host.layers.make_room(6 * SIZE)
                await asyncio.sleep(0)

        async def live(number: int) -> None:
            for turn in range(6):
                name, pin = f"{number}.{turn}", chance.choice(pins)
                there.users[name] = pin
                paths = await there.host.layers.ensure(pin)
                for _ in range(3):
                    for path in paths:
                        assert (path / "file").stat().st_size == SIZE
                    await asyncio.sleep(0.001)
                del there.users[name]

        async with TaskGroup() as tasks:
            evicting = tasks.create_task(evict())
            async with TaskGroup() as lives:
                for number in range(3):
                    lives.create_task(live(number))
            is_over = True
            await evicting
        assert store.sent_bytes > sum(len(blob) for _, blob in blobs)  # some went, and came again
