"""Layers of images, unpacked once per host.

A layer's directory is named by its diff id and is complete or absent: it is unpacked aside, flushed
and renamed. Nothing in it depends on the layers below, so images share layers by content.

An image's config says which diff id its blob has, and whoever made the image may lie. So a layer that is
here is used for a blob only after that very blob was fetched through the image's repository, and had that
content: else a tenant could run the layer of another by knowing its diff id.
"""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import httpx

from labfleet_chassis.logs import Log
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import (
    DigestMismatchError,
    DiskFullError,
    NotFoundError,
    Problem,
    UnavailableError,
)
from labfleet_proto.ids import Digest
from labfleet_proto.images import ImagePin, LayerRef
from labfleet_proto.tenants import FLEET_USER

_AT_ONCE = 3
_UNPACK_LIMIT_S = 1800.0
_DISK_RESERVE_BYTES = 1 << 30


class LayerStore:
    """The host's layers, below `<state>/layers`, which no container's user can enter."""

    def __init__(self, state_dir: Path, registry_url: str, fleet_secret: str, log: Log) -> None:
        self._dir = state_dir / "layers"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._dir.chmod(0o700)
        self._aside = state_dir / "layers.new"
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(mode=0o700)
        self._proofs = state_dir / "layers.proved"
        self._proofs.mkdir(exist_ok=True, mode=0o700)
        self._proved = {path.name for path in self._proofs.iterdir()}
        """Pairs of blob and content that were seen to belong together."""
        self._client = httpx.AsyncClient(
            base_url=registry_url,
            auth=(FLEET_USER, fleet_secret),
            timeout=httpx.Timeout(30.0, connect=5.0),
        )
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._locks: dict[Digest, asyncio.Lock] = {}
        self._log = log

    def path_of(self, layer: LayerRef) -> Path:
        """Directory of an unpacked layer, present or not."""
        return self._dir / layer.diff_id.removeprefix("sha256:")

    async def ensure(self, pin: ImagePin) -> list[Path]:
        """Make all layers present; return their directories, base first.

        Each layer is fetched and unpacked once, however many containers wait for it.

        Raises:
            DigestMismatchError: the bytes do not match their names.
            DiskFullError, UnavailableError: may succeed later.
        """
        missing = [layer for layer in pin.layers if not self._is_here(layer)]
        if missing:
            await self._fetch_all(pin.repository, list(dict.fromkeys(missing)))
        return [self.path_of(layer) for layer in pin.layers]

    def _is_here(self, layer: LayerRef) -> bool:
        return _pair(layer) in self._proved and self.path_of(layer).is_dir()

    async def _fetch_all(self, repository: str, layers: list[LayerRef]) -> None:
        try:
            async with TaskGroup() as tasks:
                for layer in layers:
                    tasks.create_task(self._fetch_once(repository, layer))
        except ExceptionGroup as group:  # not except*: that would wrap what is raised here
            raise group.exceptions[0] from None

    async def _fetch_once(self, repository: str, layer: LayerRef) -> None:
        lock = self._locks.setdefault(layer.diff_id, asyncio.Lock())
        async with lock, self._slots:
            if not self._is_here(layer):
                await self._fetch(repository, layer)

    async def _fetch(self, repository: str, layer: LayerRef) -> None:
        free = shutil.disk_usage(self._dir).free
        if free < layer.size_bytes * 4 + _DISK_RESERVE_BYTES:
            raise DiskFullError(f"fetch layer {layer.digest}: only {free >> 20} MiB free")
        aside = self._aside / layer.diff_id.removeprefix("sha256:")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o755)
        try:
            async with asyncio.timeout(_UNPACK_LIMIT_S):
                answer = await self._unpack(repository, layer, aside)
            for name, wanted in (("digest", layer.digest), ("diff_id", layer.diff_id)):
                if answer[name] != wanted:
                    raise DigestMismatchError(
                        f"layer {layer.digest}: its {name} is {answer[name]}, not {wanted}"
                    )
            if not self.path_of(layer).is_dir():
                await asyncio.to_thread(_publish, aside, self.path_of(layer))
            (self._proofs / _pair(layer)).touch()
            self._proved.add(_pair(layer))
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._log.info("layer.ready", digest=layer.digest, bytes=layer.size_bytes)

    async def _unpack(self, repository: str, layer: LayerRef, aside: Path) -> dict[str, str]:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "labfleet_runtime_agent.adapters.unpack_layer",
            str(aside),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            await self._download(repository, layer, child)
            if child.stdin is not None:
                child.stdin.close()
            out, _ = await child.communicate()
        except BaseException:
            if child.returncode is None:
                child.kill()
                await child.wait()
            raise
        answer: dict[str, str] = json.loads(out) if out else {"error": "died", "code": "internal"}
        if "error" in answer:
            message = f"unpack layer {layer.digest}: {answer['error']}"
            raise Problem(code=answer["code"], message=message).to_error()
        return answer

    async def _download(
        self, repository: str, layer: LayerRef, child: asyncio.subprocess.Process
    ) -> None:
        url = f"/v2/{repository}/blobs/{layer.digest}"
        try:
            async with self._client.stream("GET", url) as answer:
                if answer.status_code == 404:
                    raise NotFoundError(f"layer {layer.digest} of {repository} is not in the store")
                answer.raise_for_status()
                async for data in answer.aiter_raw(1 << 18):
                    if child.stdin is None or child.stdin.is_closing():
                        return
                    child.stdin.write(data)
                    await child.stdin.drain()
        except (BrokenPipeError, ConnectionResetError, RuntimeError):
            return  # the child has ended and said why; uvloop raises RuntimeError for a closed pipe
        except httpx.HTTPError as exc:
            raise UnavailableError(f"fetch layer {layer.digest}: {exc!r}") from exc

    def collect(self, in_use: set[Digest]) -> list[str]:
        """Remove the layers that no record refers to; return their names."""
        keep = {digest.removeprefix("sha256:") for digest in in_use}
        gone = [path for path in self._dir.iterdir() if path.name not in keep]
        for path in gone:
            shutil.rmtree(path, ignore_errors=True)
        for pair in [each for each in self._proved if each.partition("-")[2] not in keep]:
            (self._proofs / pair).unlink(missing_ok=True)
            self._proved.discard(pair)
        return [path.name for path in gone]

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


def _pair(layer: LayerRef) -> str:
    """Name of the proof that a blob has this content."""
    digest, diff_id = layer.digest, layer.diff_id
    return f"{digest.removeprefix('sha256:')}-{diff_id.removeprefix('sha256:')}"


def _publish(aside: Path, final: Path) -> None:
    """Flush a layer and give it its name."""
    fd = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.sync()
    finally:
        os.close(fd)
    aside.rename(final)
    parent = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
