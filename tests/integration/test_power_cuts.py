"""The image store loses its power, or is killed: what was acknowledged is there, what is there is whole.

A power cut is a copy of the store's disk, a loop-mounted ext4, at the moment of an acknowledgement: what the
kernel still held in memory is not in it.
"""

import os
import random
import re
import shutil
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx
import pytest
from tests.farm.lone_store import LoneStore, lone_store
from tests.farm.loop_disk import after_power_cut, copy_disk, new_disk
from tests.farm.store_worker import Worker, digest_of

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mkfs.ext4") is None, reason="not root"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

DISK_BYTES = 800 << 20
HASTE = {"COLLECT_EVERY_S": 0.05, "COLLECT_GRACE_S": 1.0, "SCRUB_EVERY_S": 0.5}
WORKERS = 3
_LIMIT_S = 120.0
SESSION = re.compile(r"[0-9a-f]{32}(\.repository)?")


class Crew:
    """Workers side by side; one acknowledgement after the other is counted."""

    def __init__(self, store: LoneStore, seed: int) -> None:
        chance = random.Random(seed)
        pool = [chance.randbytes(chance.randint(1, 100_000)) for _ in range(8)]
        self.workers = [
            Worker(f"power/{number}", pool, random.Random(seed * 10 + number))
            for number in range(WORKERS)
        ]
        self._store = store
        self._failures: list[BaseException] = []
        self._is_over = threading.Event()
        self._turn = threading.Condition()
        self._acknowledged = 0
        self._held = False

    def _run(self, worker: Worker) -> None:
        try:
            with self._store.client() as client:
                while not self._is_over.is_set():
                    worker.step(client)
                    with self._turn:
                        self._acknowledged += 1
                        self._turn.notify_all()
                        self._turn.wait_for(lambda: not self._held, _LIMIT_S)
        except BaseException as exc:  # noqa: BLE001 - told by the test
            if not (isinstance(exc, httpx.TransportError) and self._is_over.is_set()):
                self._failures.append(exc)  # else the store was killed

    def __enter__(self) -> Self:
        self._is_over.clear()
        self._threads = [
            threading.Thread(target=self._run, args=(each,), daemon=True) for each in self.workers
        ]
        for thread in self._threads:
            thread.start()
        return self

    def at_acknowledgement(self, number: int) -> None:
        """Wait for so many more; until the block ends, who was answered asks nothing more."""
        with self._turn:
            target = self._acknowledged + number
            assert self._turn.wait_for(
                lambda: self._acknowledged >= target or self._failures, _LIMIT_S
            ), "too slow"
            self._held = True
        assert not self._failures, self._failures

    def go_on(self) -> None:
        """Work again."""
        with self._turn:
            self._held = False
            self._turn.notify_all()

    def stop(self) -> None:
        """No more steps, whatever becomes of those under way."""
        self._is_over.set()
        self.go_on()

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(30)
        assert not self._failures, self._failures


def _check(store: LoneStore, workers: list[Worker]) -> None:
    """What was acknowledged is there; what is there is whole, and nothing half-made."""
    with store.client() as client:
        for worker in workers:
            worker.check(client)
    for path in (store.images / "blobs").rglob("*"):
        if path.is_file():
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue  # collected meanwhile
            assert digest_of(data) == f"sha256:{path.name}"
    assert list((store.images / "quarantine").iterdir()) == []
    for path in (store.images / "uploads").iterdir():
        assert SESSION.fullmatch(path.name), f"{path.name} is left"


def _snapshot(workers: list[Worker]) -> list[Worker]:
    return [
        Worker(each.name, each.pool, random.Random(0), dict(each.tags), each.doing)
        for each in workers
    ]


def _cut(folder: Path, cuts: int, seed: int) -> None:
    chance = random.Random(seed)
    disk = folder / "disk.img"
    with ExitStack() as stack:
        place = stack.enter_context(new_disk(disk, DISK_BYTES))
        store = stack.enter_context(lone_store(place, folder / "log", **HASTE))
        crew = stack.enter_context(Crew(store, seed))
        for number in range(cuts):
            crew.at_acknowledgement(chance.randint(5, 25))
            with store.stopped():
                known = _snapshot(crew.workers)
                copy = folder / f"cut{number}.img"
                copy_disk(disk, copy)
            crew.go_on()
            with (
                after_power_cut(copy) as again,
                lone_store(again, folder / f"log{number}", **HASTE) as after,
            ):
                _check(after, known)
            copy.unlink()


@pytest.mark.timeout(180)
def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    _cut(tmp_path, 1, 20261124)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_power_cuts_take_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    _cut(tmp_path, 15, seed)


def _kill(folder: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    with lone_store(folder / "store", folder / "log", **HASTE) as store:
        crew = Crew(store, seed)
        for _ in range(kills):
            with crew:
                crew.at_acknowledgement(chance.randint(3, 15))
                crew.go_on()
                time.sleep(chance.random() * 0.05)  # anywhere in the middle of things
                crew.stop()
                store.kill()
            store.restart()
            _check(store, crew.workers)
            with store.client() as client:
                for worker in crew.workers:
                    worker.after_restart(client)


@pytest.mark.timeout(180)
def test_kills_take_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    _kill(tmp_path, 1, 20261124)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [4, 5])
def test_many_kills_take_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    _kill(tmp_path, 25, seed)
