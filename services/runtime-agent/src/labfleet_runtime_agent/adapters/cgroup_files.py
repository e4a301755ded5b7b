"""Files of control groups: what both kinds of hierarchies share."""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from labfleet_proto.errors import InternalError
from labfleet_proto.runtime import DeviceIo

PERIOD_US = 100_000
_DRAIN_S = 2.0
_DRAIN_STEP_S = 0.01


def write(path: Path, value: str) -> None:
    """Write one value. Raises InternalError naming the file that refused.

    Without the layers of a text file: a start writes two dozen of these.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, value.encode())
        finally:
            os.close(file)
    except OSError as exc:
        raise InternalError(f"cannot write {value!r} to {path}: {exc.strerror}") from exc


def write_if_there(path: Path, value: str) -> None:
    """Write one value if the kernel has the file and takes it."""
    if path.exists():
        with contextlib.suppress(InternalError):
            write(path, value)


def read_int(path: Path, default: int = 0) -> int:
    """Read one number; `default` for a file that is absent or says `max`."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return default


def read_numbers(path: Path) -> list[int]:
    """Read all numbers of a file; none of an absent one."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def devices_of(counters: dict[str, dict[str, int]]) -> tuple[DeviceIo, ...]:
    """Counters by `major:minor` as sorted records."""
    found = []
    for device, fields in counters.items():
        major, _, minor = device.partition(":")
        if major.isdigit() and minor.isdigit():
            found.append(DeviceIo(major=int(major), minor=int(minor), **fields))
    return tuple(sorted(found, key=lambda each: (each.major, each.minor)))


def read_table(path: Path) -> dict[str, int]:
    """Parse lines of `key value`."""
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if value.strip().isdigit():
                found[key] = int(value)
    return found


def remove_dir(path: Path) -> None:
    """Remove a group, waiting while the kernel still counts a dying process in it."""
    end_s = time.monotonic() + _DRAIN_S
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno != errno.EBUSY or time.monotonic() > end_s:
                raise InternalError(f"cannot remove cgroup {path}: {exc.strerror}") from exc
            time.sleep(_DRAIN_STEP_S)  # in a worker thread
        else:
            return


def child_names(parent: Path) -> set[str]:
    """Names of the groups below."""
    try:
        return {child.name for child in parent.iterdir() if child.is_dir()}
    except FileNotFoundError:
        return set()


def wait_for(is_reached: Callable[[], bool], what: str) -> None:
    """Wait for the kernel, in a worker thread. Raises InternalError after two seconds."""
    end_s = time.monotonic() + _DRAIN_S
    while not is_reached():
        if time.monotonic() > end_s:
            raise InternalError(f"{what}: the kernel did not get there in {_DRAIN_S:g} s")
        time.sleep(_DRAIN_STEP_S)
