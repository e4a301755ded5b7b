"""P7: the image store beside Debian's docker-registry, over plain sockets that cost a client little."""

import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tests.bench.samples import Measure, Samples
from tests.farm.fleet import running_fleet
from tests.farm.registries import PROGRAM, other_registry

from labfleet_proto.ids import OPERATORS

REPOSITORY = "bench/blobs"
_LIMIT_S = 120.0
_PIECE = 1 << 20
_CONNECTIONS = 4
_PIPELINED = 16
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_GB = 1_000_000_000
_CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class StoreError(Exception):
    """An answer that is none of those awaited."""


@dataclass(frozen=True)
class Store:
    """One registry, and the process that serves it."""

    name: str
    version: str
    address: tuple[str, int]
    process: int
    login: str = ""
    known: dict[int, str] = field(default_factory=dict)
    """Digests of blobs that were pushed for reading, by their size."""

    def cpu_s(self) -> float:
        """Processor time of the process so far."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    @contextlib.contextmanager
    def connection(self) -> Iterator["Connection"]:
        """Open a connection."""
        with socket.create_connection(self.address, timeout=_LIMIT_S) as link:
            yield Connection(self, link)


class Connection:
    """Requests of a registry's client, one after another. Raises StoreError, OSError."""

    def __init__(self, store: Store, link: socket.socket) -> None:
        self._store = store
        self._link = link
        self._rest = b""

    def head(self, method: str, place: str, headers: Mapping[str, str]) -> bytes:
        """A request's head."""
        host, port = self._store.address
        every = {"Host": f"{host}:{port}", **headers}
        if self._store.login:
            every["Authorization"] = self._store.login
        lines = [f"{method} {place} HTTP/1.1", *(f"{key}: {every[key]}" for key in every)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def ask(
        self, method: str, place: str, body: bytes = b"", status: int = 200, kind: str = ""
    ) -> dict[str, str]:
        """Send a request, drop the answer's body, return its headers."""
        headers = {"Content-Length": str(len(body))} | ({"Content-Type": kind} if kind else {})
        self._link.sendall(self.head(method, place, headers))
        view = memoryview(body)
        for start in range(0, len(body), _PIECE):
            self._link.sendall(view[start : start + _PIECE])
        found = self._read_head(status)
        self._drop(int(found.get("content-length", "0")) if method != "HEAD" else 0)
        return found

    def _read_head(self, status: int) -> dict[str, str]:
        while b"\r\n\r\n" not in self._rest:
            data = self._link.recv(65_536)
            if not data:
                raise StoreError("the connection has ended")
            self._rest += data
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if int(first.split()[1]) != status:
            raise StoreError(f"{first} instead of {status}")
        return {key.lower(): text.strip() for key, _, text in (x.partition(":") for x in lines)}

    def _drop(self, count: int) -> None:
        count -= len(self._rest[:count])
        self._rest = b"" if count else self._rest[len(self._rest) :]
        room = memoryview(bytearray(_PIECE))
        while count:
            got = self._link.recv_into(room[: min(count, _PIECE)])
            if not got:
                raise StoreError(f"{count} bytes are missing")
            count -= got

    def push(self, data: bytes) -> str:
        """Upload a blob as docker does: begin, send, finish with its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        begun = self.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/", status=202)
        place = self._place(begun["location"])
        sent = self.ask("PATCH", place, data, 202, "application/octet-stream")
        place = self._place(sent["location"])
        joint = "&" if "?" in place else "?"
        self.ask("PUT", f"{place}{joint}digest={digest}", status=201)
        return digest

    @staticmethod
    def _place(location: str) -> str:
        return location if location.startswith("/") else "/" + location.split("/", 3)[3]

    def many(self, request: bytes, count: int) -> None:
        """Send the same request many times, some ahead of their answers; all must be alike."""
        self._link.sendall(request)
        headers = self._read_head(200)
        self._drop(int(headers["content-length"]))
        for start in range(0, count - 1, _PIPELINED):
            batch = min(_PIPELINED, count - 1 - start)
            self._link.sendall(request * batch)
            for _ in range(batch):
                headers = self._read_head(200)
                size = int(headers["content-length"])
                while len(self._rest) < size:
                    self._rest += self._link.recv(65_536)
                self._rest = self._rest[size:]


def downloads(store: Store, count: int, into: Samples) -> None:
    """Processor time of the store for a GB of blobs of so many MiB."""
    size = count << 20
    try:
        with store.connection() as link:
            if size not in store.known:
                store.known[size] = link.push(secrets.token_bytes(size))
            place = f"/v2/{REPOSITORY}/blobs/{store.known[size]}"
            times = max(_GB // size, 1)
            began_s = store.cpu_s()
            for _ in range(times):
                link.ask("GET", place)
            into.took_s.append((store.cpu_s() - began_s) * _GB / (times * size))
    except (StoreError, OSError) as exc:
        into.note(exc)


def manifests(store: Store, count: int, into: Samples) -> None:
    """Time of so many requests of one manifest over four connections."""
    place = f"/v2/{REPOSITORY}/manifests/bench"
    with store.connection() as link:
        config = {"digest": link.push(_CONFIG), "size": len(_CONFIG)}
        config["mediaType"] = "application/vnd.oci.image.config.v1+json"
        text = {"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, "config": config, "layers": []}
        link.ask("PUT", place, json.dumps(text).encode(), 201, _MANIFEST_TYPE)
    failures: list[Exception] = []

    def some() -> None:
        try:
            with store.connection() as own:
                request = own.head("GET", place, {"Accept": _MANIFEST_TYPE})
                own.many(request, count // _CONNECTIONS)
        except (StoreError, OSError) as exc:
            failures.append(exc)

    threads = [threading.Thread(target=some, daemon=True) for _ in range(_CONNECTIONS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - began
    for failure in failures:
        into.note(failure)
    if not failures:
        into.took_s.append(took_s)


def pushes(store: Store, count: int, into: Samples) -> None:
    """Time to push a new blob of so many MiB."""
    data = secrets.token_bytes(count << 20)
    try:
        with store.connection() as link:
            began = time.perf_counter()
            link.push(data)
            into.took_s.append(time.perf_counter() - began)
    except (StoreError, OSError) as exc:
        into.note(exc)


MEASURES = (
    Measure("P7a", "blobs: processor time of the store for a GB", 1, 5, 512, downloads),
    Measure("P7b", "manifests, on four connections", 2, 5, 2000, manifests),
    Measure("P7c", "push of a blob, MiB", 1, 5, 256, pushes),
)


@contextlib.contextmanager
def labfleet() -> Iterator[Store]:
    """The image store of a fleet of one virtual host."""
    with (
        tempfile.TemporaryDirectory(prefix="lfbench-") as config,
        running_fleet(Path(config), hosts=1, suffix="-store") as fleet,
    ):
        word = base64.b64encode(f"{OPERATORS}:{fleet.plan.fleet_secret}".encode()).decode()
        address = ("127.0.0.1", fleet.plan.registry_port)
        process = fleet.service_pid("image-store")
        yield Store("labfleet", version("labfleet"), address, process, f"Basic {word}")


@contextlib.contextmanager
def docker_registry() -> Iterator[Store]:
    """Debian's docker-registry with a directory of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="lfbench-", dir="/var/tmp") as folder,
        other_registry(Path(folder)) as started,
    ):
        if started.process is None:
            raise RuntimeError("docker-registry does not run")
        said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
        address = ("127.0.0.1", started.port)
        yield Store(PROGRAM, said.stdout.split()[-1], address, started.process.pid)


def is_peer_here() -> bool:
    """Whether there is one to measure against."""
    return shutil.which(PROGRAM) is not None
