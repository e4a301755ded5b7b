"""Names in directories that outlive a power cut."""

import os
from pathlib import Path


def sync_dir(path: Path) -> None:
    """Flush a directory: names made or taken in it before stay so. Blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dir(path: Path) -> None:
    """Make a directory, durably, unless it is there. Blocks."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    sync_dir(path.parent)
