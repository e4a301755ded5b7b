"""Volumes bound into the root of a container that does not run, so that `docker cp` reaches them."""

import os
from collections.abc import Sequence
from pathlib import Path

from labfleet_proto.errors import InternalError
from labfleet_runtime_agent.adapters import kernel
from labfleet_runtime_agent.core.spec import VolumeSource

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def bind_all(root: Path, sources: Sequence[VolumeSource], base: int) -> None:
    """Bind each volume at its target beneath `root`; `Snapshots.unmount` takes them away.

    Targets are resolved by the kernel beneath the root; missing directories are made, as a start
    would make them. Raises InternalError.
    """
    root_fd = os.open(root, _DIRECTORY | os.O_CLOEXEC)
    try:
        for volume in sorted(sources, key=lambda each: each.target.count("/")):
            if os.path.isdir(volume.source):  # noqa: PTH112 - a file of the host stays out
                _bind(root_fd, volume, base)
    except OSError as exc:
        raise InternalError(f"cannot mount a volume's files: {exc}") from exc
    finally:
        os.close(root_fd)


def _bind(root_fd: int, volume: VolumeSource, base: int) -> None:
    target = _directory(root_fd, volume.target.strip("/") or ".", base)
    try:
        tree = kernel.clone_mount(Path(volume.source))
        try:
            kernel.attach_mount_at(tree, target)
        finally:
            os.close(tree)
    finally:
        os.close(target)


def _directory(root_fd: int, path: str, base: int) -> int:
    """Open a directory beneath the root, making what is missing."""
    try:
        return kernel.open_in_root(root_fd, path, _DIRECTORY)
    except FileNotFoundError:
        above, _, leaf = path.rpartition("/")
        parent = _directory(root_fd, above or ".", base)
        try:
            os.mkdir(leaf, 0o755, dir_fd=parent)
            os.chown(leaf, base, base, dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)
        return kernel.open_in_root(root_fd, path, _DIRECTORY)
