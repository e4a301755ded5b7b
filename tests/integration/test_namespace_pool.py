"""Namespaces that are ready before their container asks, on the real kernel."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from labfleet_network.service.kernel import Kernel
from labfleet_network.settings import Settings
from labfleet_proto.ids import OPERATORS, JobId
from labfleet_proto.jobs import Job
from labfleet_proto.networks import PREPARE_NAMESPACES, PrepareNamespaces, UserIds
from labfleet_runtime_agent.adapters.kernel import owner_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

_COUNT = 65_536
_JOB = Job(
    id=JobId("0" * 32), kind=PREPARE_NAMESPACES.name, tenant=OPERATORS, subject="h1", host=None,
    deadline_ns=0, trace="",
)  # fmt: skip


def _ids(number: int) -> UserIds:
    return UserIds(first=1_700_000_000 + number * _COUNT, count=_COUNT)


async def _announce(kernel: Kernel, *numbers: int) -> None:
    args = PrepareNamespaces(owners=tuple(_ids(number) for number in numbers))
    await kernel.prepare_namespaces(_JOB, args)


async def _until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.01)


@pytest.fixture
async def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kernel]:
    """With a pool of two, and without links: pyroute2 keeps its socket until the process ends."""
    monkeypatch.setattr("labfleet_network.service.kernel.Links", object)
    settings = Settings(host="h1", run_dir=tmp_path, pool_size=2)
    made = await asyncio.to_thread(Kernel, settings)
    loop = asyncio.get_running_loop().create_task(made.fill_pool())
    yield made
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
    for name in made.namespaces.names():
        await made.in_thread(made.namespaces.remove, name)
    for token in made.namespaces.spares():
        await made.in_thread(made.namespaces.drop, token)
    await asyncio.to_thread(made.close)


async def test_who_was_announced_finds_one_ready(kernel: Kernel) -> None:
    await _announce(kernel, 1, 2, 3)
    await _until(lambda: len(kernel.namespaces.spares()) == 2)
    ready = kernel.namespaces.spares()
    await kernel.take_namespace("c1", _ids(1))
    taken = kernel.namespaces.path("c1")
    assert taken is not None
    assert taken.name in ready
    await kernel.take_namespace("c9", _ids(9))  # comes unannounced
    path = kernel.namespaces.path("c9")
    assert path is not None
    assert path.name not in ready
    with owner_of(str(path)) as owner:
        assert os.fstat(owner).st_ino != Path("/proc/self/ns/user").stat().st_ino


async def test_who_is_announced_no_more_keeps_his_until_others_need_the_room(
    kernel: Kernel,
) -> None:
    await _announce(kernel, 1, 2)
    await _until(lambda: len(kernel.namespaces.spares()) == 2)
    first = kernel.namespaces.spares()
    await _announce(kernel, 3, 4)
    await _until(lambda: len(kernel.namespaces.spares()) == 4)
    assert first < kernel.namespaces.spares()
    await _announce(kernel, 5, 6)
    await _until(lambda: len(kernel.namespaces.spares()) == 4 and not first & _tokens(kernel))


def _tokens(kernel: Kernel) -> set[str]:
    return kernel.namespaces.spares()


async def test_another_attempt_gets_another(kernel: Kernel) -> None:
    await kernel.take_namespace("c1", _ids(1))
    first = kernel.namespaces.path("c1")
    await kernel.take_namespace("c1", _ids(1))
    assert kernel.namespaces.path("c1") not in (None, first)
    assert kernel.namespaces.spares() == set()


async def test_a_namespace_of_the_host_belongs_to_no_container(kernel: Kernel) -> None:
    await kernel.take_namespace("c1", None)
    with (
        pytest.raises(PermissionError, match="belongs to the host"),
        owner_of(str(kernel.namespaces.path("c1"))),
    ):
        pass
