"""The unpacker against layers by chance: no file outside, no crash, no hang, and what is left can be taken away.

A failure names its seed; `LABFLEET_FUZZ_SEED=N` begins there, `LABFLEET_FUZZ_S` says for how long the long run goes on.
"""

import io
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest
from tests.farm import one_host
from tests.zoo.mutations import layer

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.adapters.unpack_layer import unpack

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners need root"),
]

_HANG_S = 10.0
_LONG_S = float(os.environ.get("LABFLEET_FUZZ_S", "240"))
_FIRST = int(os.environ.get("LABFLEET_FUZZ_SEED", "0"))


def _hangs(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise AssertionError("hangs")


@contextmanager
def _limit() -> Iterator[None]:
    before = signal.signal(signal.SIGVTALRM, _hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, _HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class _Room:
    """A directory whose only change may be below `root`."""

    def __init__(self, home: Path) -> None:
        self.home, self.root = home, home / "root"
        (home / "outside").mkdir()
        (home / "outside" / "file").write_text("untouched")
        self.descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def attempt(self, seed: int) -> str:
        """Unpack the layer of a seed and look around; return what came of it."""
        blob = layer(random.Random(seed))
        self.root.mkdir()
        with _limit():
            try:
                unpack(str(self.root), io.BytesIO(blob))
                word = "taken"
            except InvalidRequestError as exc:
                assert exc.message.startswith(("archive: ", "layer: "))  # noqa: PT017
                exc.message.encode()
                word = "refused"
        shutil.rmtree(self.root)
        self._look()
        return word

    def _look(self) -> None:
        assert [path.name for path in self.home.iterdir()] == ["outside"]
        inside = self.home / "outside" / "file"
        assert [path.name for path in inside.parent.iterdir()] == ["file"]
        there = inside.stat()
        assert (there.st_nlink, there.st_uid, there.st_mode & 0o7777) == (1, 0, 0o644)
        assert inside.read_text() == "untouched"
        assert len(os.listdir("/proc/self/fd")) == self.descriptors  # noqa: PTH208


def _run(first: int, until_s: float) -> Counter[str]:
    words: Counter[str] = Counter()
    seed = first
    with one_host.directory() as home:
        room = _Room(home)
        while time.monotonic() < until_s:
            try:
                words[room.attempt(seed)] += 1
            except BaseException as exc:
                exc.add_note(f"seed {seed}")
                raise
            seed += 1
    return words


def test_layers_by_chance_do_no_harm() -> None:
    words = _run(_FIRST, time.monotonic() + 4)
    assert min(words["taken"], words["refused"]) > 50, words


@pytest.mark.long
@pytest.mark.timeout(_LONG_S * 2 + 60)
def test_many_layers_by_chance_do_no_harm() -> None:
    first = _FIRST or random.SystemRandom().randrange(1 << 40)
    words = _run(first, time.monotonic() + _LONG_S)
    assert min(words["taken"], words["refused"]) > 500, f"from seed {first}: {words}"
