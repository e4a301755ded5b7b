"""Named volumes whose home is this host: directories with container ids, some with a size."""

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from labfleet_chassis import process
from labfleet_proto.errors import (
    ConflictError,
    InternalError,
    InvalidRequestError,
    UnavailableError,
)
from labfleet_proto.ids import TenantId
from labfleet_proto.volume_options import VolumeKind
from labfleet_runtime_agent.adapters import kernel

_LIMIT_S = 60.0
_MKFS = ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1")
_ELSEWHERE = "elsewhere"
"""Stands beside the files of a volume that are mounted from elsewhere."""
_FLAGS = 2 | 4
"""nosuid, nodev."""


class VolumeStore:
    """Volumes below `<state>/volumes/<tenant>/<name>/data`.

    A volume with a size is an ext4 file system in the file `image` beside it, sparse: it works on any
    file system, where project quotas do not.
    """

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir / "volumes"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._dir.chmod(0o711)
        self._mounting = asyncio.Lock()
        self._reaching = asyncio.Lock()
        """A server that does not answer delays nobody but those who wait for such a one."""

    async def make(
        self, tenant: TenantId, name: str, kind: VolumeKind | None = None
    ) -> tuple[Path, bool]:
        """Return the volume's data directory, making it if need be, and whether it is empty.

        Raises InternalError.
        """
        data = self._dir / tenant / name / "data"
        kind = kind or VolumeKind()
        await asyncio.to_thread(_make_directory, data)
        if kind.kind != "plain":
            async with self._reaching if kind.kind == "mounted" else self._mounting:
                if not await asyncio.to_thread(os.path.ismount, data):
                    await self._mount(data, kind)
        return data, await asyncio.to_thread(_is_empty, data)

    async def _mount(self, data: Path, kind: VolumeKind) -> None:
        if kind.kind == "tmpfs":
            data_words = ",".join((f"size={kind.size_bytes}", *(w for w in kind.words if "=" in w)))
            try:
                kernel.mount("tmpfs", data, "tmpfs", _FLAGS, data_words)
            except OSError as exc:
                raise InternalError(f"cannot mount volume at {data}: {exc}") from exc
            return
        if kind.kind == "mounted":
            await self._mount_from_elsewhere(data, kind)
            return
        image = data.parent / "image"
        if not image.exists():
            aside = image.with_suffix(".new")  # whole, or not there at all
            await asyncio.to_thread(_make_sparse, aside, kind.size_bytes)
            await process.run([*_MKFS, aside], timeout_s=_LIMIT_S)
            aside.rename(image)
        words: list[str | Path] = ["mount", "-o", "loop,nosuid,nodev", image, data]
        await process.run(words, timeout_s=_LIMIT_S)
        with contextlib.suppress(OSError):  # or it has files already
            (data / "lost+found").rmdir()

    async def _mount_from_elsewhere(self, data: Path, kind: VolumeKind) -> None:
        """As docker does: by the kernel alone, without the file system's own helper program."""
        (data.parent / _ELSEWHERE).touch()
        words: list[str | Path] = ["mount", "-i", "-t", kind.file_system]
        words += ["-o", ",".join(("nosuid", "nodev", *kind.words)), "--", kind.device, data]
        what = f"error while mounting volume '{data.parent.name}': failed to mount local volume: "
        try:
            await process.run(words, timeout_s=_LIMIT_S)
        except process.ProgramFailedError as exc:
            first = exc.done.stderr.decode(errors="replace").strip().partition("\n")[0]
            said = first.rpartition(": ")[2]
            raise InvalidRequestError(f"{what}mount {kind.device}: {said}") from exc
        except TimeoutError as exc:
            raise UnavailableError(f"{what}{kind.device}: no answer in {_LIMIT_S:g} s") from exc

    async def remove(self, tenant: TenantId, name: str) -> None:
        """Delete a volume's files; absent is success. Raises ConflictError if that fails."""
        path = self._dir / tenant / name
        if path.exists():
            await asyncio.to_thread(_remove, path)
        if path.exists():
            raise ConflictError(f"remove {name}: volume is in use")

    def size(self, tenant: TenantId, name: str) -> int:
        """Bytes on disk of a volume's files; 0 if there are none, -1 if they are elsewhere."""
        if (self._dir / tenant / name / _ELSEWHERE).exists():
            return -1
        total = 0
        for folder, _, files in os.walk(self._dir / tenant / name / "data"):
            for file in files:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, file)).st_blocks * 512  # noqa: PTH118
        return total

    def all(self) -> set[tuple[str, str]]:
        """Tenant and name of each volume here."""
        return {
            (volume.parent.name, volume.name) for volume in self._dir.glob("*/*") if volume.is_dir()
        }


def _make_directory(data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    for path in (data.parent, data.parent.parent):
        path.chmod(0o711)


def _is_empty(data: Path) -> bool:
    return not any(data.iterdir())


def _make_sparse(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


def _remove(path: Path) -> None:
    kernel.unmount(path / "data")
    if (path / "data").is_mount():
        return  # never delete what is mounted there
    shutil.rmtree(path, ignore_errors=True)


def is_empty_directory(path: Path) -> bool:
    """Whether a directory is there and nothing in it."""
    return path.is_dir() and not any(path.iterdir())
