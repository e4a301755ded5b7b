"""Files and names that outlive a power cut. All of it blocks."""

import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Replace the file at `path`, which root alone may read, once the new one is on the disk."""
    aside = path.with_name(f".{path.name}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    flush_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file that is there."""
    path.unlink()
    flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    """Put the names of a directory on the disk: what was made or taken in it before stays so."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory unless it is there."""
    try:
        path.mkdir()
    except FileExistsError:
        return
    flush_directory(path.parent)
