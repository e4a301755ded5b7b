"""Hashing beside unpacking: when it fails, whoever hands bytes on hears of it and never waits for ever."""

import hashlib
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.adapters import unpack_layer
from labfleet_runtime_agent.adapters.unpack_layer import _Hash, unpack

pytestmark = pytest.mark.timeout(30)


class Broken:
    """A hash that ends with its first bytes."""

    def __init__(self, failure: type[BaseException]) -> None:
        self._failure = failure

    def update(self, _data: bytes) -> None:
        raise self._failure

    def hexdigest(self) -> str:
        return "00"


def _hand_on(hashed: _Hash, times: int) -> None:
    for _ in range(times):
        hashed.update(b"data")


def broken(monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]) -> None:
    monkeypatch.setattr(unpack_layer.hashlib, "sha256", lambda: Broken(failure))


def test_what_is_handed_on_is_hashed() -> None:
    parts = [os.urandom(1000) for _ in range(50)]
    hashed = _Hash()
    for part in parts:
        hashed.update(part)
    digest = hashed.digest()
    hashed.close()
    assert digest == f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}"
    with pytest.raises(RuntimeError, match="after the digest"):
        hashed.update(b"more")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("failure", "heard"),
    [
        (MemoryError, MemoryError),
        (ValueError, ValueError),
        (SystemExit, RuntimeError),  # it ends the thread without a word
    ],
)
def test_a_failure_reaches_who_hands_bytes_on(
    monkeypatch: pytest.MonkeyPatch, failure: type[BaseException], heard: type[Exception]
) -> None:
    broken(monkeypatch, failure)
    hashed = _Hash()
    with pytest.raises(heard):
        _hand_on(hashed, 100)
    hashed.close()
    with pytest.raises(heard):
        hashed.digest()


def test_a_failure_of_the_last_bytes_is_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, ValueError)
    hashed = _Hash()
    hashed.update(b"data")
    with pytest.raises(ValueError):  # noqa: PT011 - the failure itself
        hashed.digest()


@pytest.mark.parametrize("size", [10, 20 << 20])
def test_a_layer_whose_hashing_lacks_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size, entry.uid, entry.gid = size, os.getuid(), os.getgid()
        archive.addfile(entry, io.BytesIO(bytes(size)))
    tar.seek(0)
    broken(monkeypatch, MemoryError)
    before = threading.active_count()
    with pytest.raises(InvalidRequestError, match="memory"):
        unpack(str(tmp_path), tar)
    assert threading.active_count() == before
