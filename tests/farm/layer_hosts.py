"""Hosts that fetch layers, all in one process: the agent's own parts on a real nats-server, without containers."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from labfleet_chassis import bus as chassis_bus
from labfleet_chassis import logs
from labfleet_chassis.bus import Bus
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.data_port import Accept, ByteStream, DataPort, StreamHandler
from labfleet_chassis.supervise import supervise
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.buckets import HOSTS, LAYER_COPIES, LEASES, layer_copy_key
from labfleet_proto.hosts import HostRecord, Lease
from labfleet_proto.ids import Digest, HostId
from labfleet_proto.images import ImagePin, LayerRef
from labfleet_proto.layers import BlobState, LayerCopy, ReadBlob
from labfleet_proto.resources import Resources
from labfleet_proto.streams import Ticket
from labfleet_runtime_agent.adapters.blob_cache import BlobCache
from labfleet_runtime_agent.adapters.growing_blob import GrowingBlob
from labfleet_runtime_agent.adapters.layer_copies import LayerCopies
from labfleet_runtime_agent.adapters.layer_download import LayerDownload
from labfleet_runtime_agent.adapters.layer_store import LayerStore
from labfleet_runtime_agent.adapters.peers import Fleet, Peers
from labfleet_runtime_agent.adapters.store_blobs import StoreBlobs
from labfleet_runtime_agent.adapters.unpack_layer import unpack
from labfleet_runtime_agent.adapters.unpacking import Unpack
from labfleet_runtime_agent.service.uploads import Uploads

KEY = b"k" * 32
SILENCE_S = 1.0
_TICK_S = 0.02


def _digest(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def image(*blobs: tuple[LayerRef, bytes]) -> ImagePin:
    """An image of some layers."""
    some = _digest(b"".join(layer.digest.encode() for layer, _ in blobs))
    return ImagePin(
        reference="image:1",
        image_id=some,
        repository="image",
        manifest_digest=some,
        layers=tuple(layer for layer, _ in blobs),
    )


def layer(size: int = 1000, name: str = "file") -> tuple[LayerRef, bytes]:
    """A layer with a file of so many random bytes, and its blob."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    blob = gzip.compress(plain.getvalue(), compresslevel=1)
    ref = LayerRef(
        digest=_digest(blob),
        diff_id=_digest(plain.getvalue()),
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
        size_bytes=len(blob),
    )
    return ref, blob


class TestStore:
    """An image store that sends as slowly as it is told, and counts."""

    __test__ = False

    def __init__(self, *blobs: tuple[LayerRef, bytes], bytes_per_s: float = 1e9) -> None:
        self._blobs = {layer.digest: blob for layer, blob in blobs}
        self._rate = bytes_per_s
        self._free_at_s = 0.0
        self.url = ""
        self.sent_bytes = 0
        self.ranges: list[int] = []
        """First byte of each request."""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Serve on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        blob = self._blobs.get(Digest(lines[0].split()[1].rpartition("/")[2]))
        if blob is None:
            writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            return
        ranges = [line for line in lines if line.lower().startswith("range:")]
        first = int(ranges[0].partition("=")[2].rstrip("-")) if ranges else 0
        self.ranges.append(first)
        word = "206 Partial" if first else "200 OK"
        head = f"HTTP/1.1 {word}\r\nContent-Length: {len(blob) - first}\r\n\r\n"
        writer.write(head.encode())
        await self._send(writer, blob[first:])

    async def _send(self, writer: asyncio.StreamWriter, blob: bytes) -> None:
        """All connections share the rate."""
        loop = asyncio.get_running_loop()
        step = max(int(self._rate * _TICK_S), 1)
        for start in range(0, len(blob), step):
            part = blob[start : start + step]
            now = loop.time()
            self._free_at_s = max(self._free_at_s, now) + len(part) / self._rate
            if self._free_at_s > now + 0.001:
                await asyncio.sleep(self._free_at_s - now)
            writer.write(part)
            await writer.drain()
            self.sent_bytes += len(part)


async def unpack_here(blob: GrowingBlob, _layer: LayerRef, aside: Path) -> dict[str, str]:
    """As the agent's child does, without a child for each of many layers."""
    with blob.open() as file:
        while not blob.is_whole:
            await blob.wait(blob.has, 1)
        return await asyncio.to_thread(unpack, str(aside), file)


async def _ended(loop: asyncio.Task[None]) -> None:
    """A cancellation may be swallowed on its way (bpo-42130)."""
    while not loop.done():
        loop.cancel()
        await asyncio.wait({loop}, timeout=0.2)


@dataclass
class LayerHost:
    """One host."""

    id: HostId
    home: Path
    layers: LayerStore
    copies: LayerCopies
    peers: Peers
    dialled: list[int] = field(default_factory=list)
    """First byte of each reading from it."""
    is_mute: bool = False
    """Takes connections and says nothing more."""


@dataclass
class LayerFarm:
    """Hosts by number on one bus."""

    bus: Bus
    store: TestStore
    home: Path
    uploads: int = 8
    cache_bytes: int = 1 << 30
    silence_s: float = SILENCE_S
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def host(self, name: str, unpack_layer: Unpack = unpack_here) -> LayerHost:
        """A host that works as it should."""
        host, clock, log = HostId(name), SystemClock(), logs.get("test")
        fleet = Fleet(host, await self.bus.bucket(HOSTS), await self.bus.bucket(LEASES), KEY, clock)
        copies = LayerCopies(await self.bus.bucket(LAYER_COPIES), host, log)
        peers = Peers(fleet, copies, self.silence_s, log)
        download = LayerDownload(StoreBlobs(self.store.url, "secret"), peers, log)
        state = self.home / name
        state.mkdir(exist_ok=True)
        blobs = BlobCache(state, self.cache_bytes, "boot")
        layers = LayerStore(state, download, blobs, copies, log, unpack_layer)
        made = LayerHost(host, state, layers, copies, peers)
        uploads = Uploads(blobs, copies, self.uploads)

        async def serve(ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
            assert isinstance(ticket.request, ReadBlob)
            made.dialled.append(ticket.request.first)
            if made.is_mute:
                await asyncio.sleep(60)
            await uploads.serve(ticket.request, stream, accept)

        await self.serve(name, serve)
        tasks = await self._stack.enter_async_context(TaskGroup())
        loop = tasks.create_task(supervise("copies", copies.keep, log))
        self._stack.push_async_callback(_ended, loop)
        return made

    async def serve(self, name: str, handler: StreamHandler) -> None:
        """A host whose data port does as `handler` says."""
        host, clock = HostId(name), SystemClock()
        port = DataPort(handler, host=host, key=KEY, clock=clock, log=logs.get("test"))
        number = await self._stack.enter_async_context(port.listening("127.0.0.1", 0))
        record = HostRecord(
            id=host,
            address="127.0.0.1",
            data_port=number,
            capacity=Resources(),
            free=Resources(),
            cores=1,
            total_memory_bytes=1,
            boot_id="boot",
            updated_at_ns=0,
        )
        await (await self.bus.bucket(HOSTS)).put(host, record)
        await (await self.bus.bucket(LEASES)).put(host, Lease(host=host, epoch=1, boot_id="boot"))

    async def claim(self, name: str, layer: LayerRef, state: BlobState = BlobState.WHOLE) -> None:
        """Let a host say that it has a layer."""
        copy = LayerCopy(host=HostId(name), digest=layer.digest, blob=state)
        bucket = await self.bus.bucket(LAYER_COPIES)
        await bucket.put(layer_copy_key(layer.digest, HostId(name)), copy)

    async def copy_of(self, name: str, layer: LayerRef) -> LayerCopy | None:
        """What a host says it has."""
        bucket = await self.bus.bucket(LAYER_COPIES)
        entry = await bucket.get(layer_copy_key(layer.digest, HostId(name)))
        return entry.value if entry is not None else None

    async def close(self) -> None:
        """Take everything away."""
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def running_farm(
    nats_url: str, store: TestStore, home: Path, limit_s: float = 30
) -> AsyncIterator[LayerFarm]:
    """Hosts below `home`, with a store that answers, for so long at most."""
    async with (
        store.listening(),
        chassis_bus.connect(
            nats_url, "", name="test", clock=SystemClock(), log=logs.get("test")
        ) as bus,
        asyncio.timeout(limit_s),
    ):
        found = LayerFarm(bus, store, home)
        try:
            yield found
        finally:
            await found.close()
