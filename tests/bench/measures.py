"""What is measured: the same requests to each engine, in slots that take turns."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.bench.client import Client, EngineError
from tests.bench.peers import IMAGE, Peer
from tests.bench.samples import Measure, Samples

SPEC: dict[str, Any] = {
    "Image": IMAGE,
    "Cmd": ["sleep", "3600"],
    "HostConfig": {
        "NetworkMode": "bridge",
        "Memory": 32 << 20,
        "NanoCpus": 1_000_000_000,
        "PidsLimit": 64,
    },
}
STOCK_SPEC: dict[str, Any] = {
    "Image": IMAGE,
    "Cmd": ["true"],
    "HostConfig": {"Memory": 6 << 20, "NanoCpus": 10_000_000, "PidsLimit": 8},
}
"""As small as can be: a host counts what is created, too."""
_REMOVERS = 8


def starts(peer: Peer, count: int, into: Samples) -> None:
    """P1: one after another, create and start until the engine says that the process runs."""
    made: list[str] = []
    with peer.client() as client:
        for _ in range(count):
            began = time.perf_counter()
            try:
                made.append(client.create(SPEC))
                client.start(made[-1])
            except (EngineError, OSError) as exc:
                into.note(exc)
                client.close()
                continue
            into.took_s.append(time.perf_counter() - began)
            _check_running(client, made[-1], into)
    _remove(peer, made, into)


def burst(peer: Peer, count: int, into: Samples) -> None:
    """P2: all at once, each on a connection of its own, until the last one runs."""
    made: list[str] = []
    ended: list[tuple[float, str]] = []
    gate = threading.Barrier(count + 1)

    def one(client: Client) -> None:
        gate.wait()
        try:
            container = client.create(SPEC)
            made.append(container)
            client.start(container)
        except (EngineError, OSError) as exc:
            into.note(exc)
            return
        ended.append((time.perf_counter(), container))

    clients = [Client(peer.socket) for _ in range(count)]
    threads = [threading.Thread(target=one, args=(client,), daemon=True) for client in clients]
    try:
        for client, thread in zip(clients, threads, strict=True):
            client.connect()
            thread.start()
        gate.wait()
        began = time.perf_counter()
        for thread in threads:
            thread.join()
    finally:
        gate.abort()
        for client in clients:
            client.close()
    if ended:
        into.took_s.append(max(ended)[0] - began)
    with peer.client() as client:
        for _, container in ended:
            _check_running(client, container, into)
    _remove(peer, made, into)


def execs(peer: Peer, count: int, into: Samples) -> None:
    """P5: create exec, start attached, read to the end, exit code 0."""
    with peer.client() as client:
        container = client.create(SPEC)
        try:
            client.start(container)
            for _ in range(count):
                began = time.perf_counter()
                try:
                    code = client.execute(container, ["true"])
                    if code != 0:
                        raise EngineError(f"exit code {code}")
                except (EngineError, OSError) as exc:
                    into.note(exc)
                    client.close()
                    continue
                into.took_s.append(time.perf_counter() - began)
        finally:
            client.remove(container)


def lists(peer: Peer, count: int, into: Samples) -> None:
    """P6: list all containers, read and parsed to the end."""
    with peer.client() as client:
        for _ in range(count):
            began = time.perf_counter()
            try:
                rows = client.call("GET", "/containers/json?all=1")
            except (EngineError, OSError) as exc:
                into.note(exc)
                client.close()
                continue
            into.took_s.append(time.perf_counter() - began)
            if not rows:
                into.failures.append("the list is empty")


@contextlib.contextmanager
def stocked(peer: Peer, count: int) -> Iterator[None]:
    """Keep so many created containers until the end of the block. Raises RuntimeError, EngineError."""

    def some(number: int) -> list[str]:
        with peer.client() as client:
            return [client.create(STOCK_SPEC) for _ in range(number)]

    shares = [len(range(at, count, _REMOVERS)) for at in range(_REMOVERS)]
    with ThreadPoolExecutor(_REMOVERS) as threads:
        made = [name for names in threads.map(some, shares) for name in names]
    try:
        yield
    finally:
        seen = Samples()
        _remove(peer, made, seen)
        if seen.failures:
            raise RuntimeError(f"{peer.name}: {seen.failures[0]}")


def _check_running(client: Client, container: str, into: Samples) -> None:
    """A start that was answered but did not happen is a failure too."""
    try:
        if not client.is_running(container):
            into.failures.append(f"{container[:12]} does not run")
    except (EngineError, OSError) as exc:
        into.note(exc)
        client.close()


def _remove(peer: Peer, made: Sequence[str], into: Samples) -> None:
    """Remove, several at once; what fails is counted and tried once more."""

    def some(part: Sequence[str]) -> None:
        for container in part:
            try:
                _remove_one(peer, container)
            except (EngineError, OSError) as exc:
                into.failures.append(f"remove {container[:12]}: {exc}")
                with contextlib.suppress(EngineError, OSError):
                    _remove_one(peer, container)

    with ThreadPoolExecutor(_REMOVERS) as threads:
        list(threads.map(some, [made[at::_REMOVERS] for at in range(_REMOVERS)]))


def _remove_one(peer: Peer, container: str) -> None:
    with peer.client() as client:
        client.remove(container)


MEASURES = (
    Measure("P1", "create + start, process runs", 5, 5, 8, starts),
    Measure("P2", "all at once, the last one runs", 6, 3, 60, burst),
    Measure("P5", "exec of true, attached", 1.5, 5, 10, execs),
    Measure("P6", "list of 1000 containers", 2, 5, 10, lists, stock=1000, hosts=5),
)


def warm_up(peers: Sequence[Peer]) -> None:
    """One start and one exec of each, so that layers are unpacked and programs cached.

    Raises RuntimeError if an engine cannot do even that.
    """
    for peer in peers:
        seen = Samples()
        starts(peer, 2, seen)
        execs(peer, 2, seen)
        if seen.failures:
            raise RuntimeError(f"{peer.name} does not work: {seen.failures[0]}")
