"""Disks that lose their power: ext4 on loop-mounted files, copied as they are at one moment.

Mounts are named after this run; those of runs whose process is gone are swept.
"""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"/lftest-(\d+)-disk-[^/ ]+$")
_LIMIT_S = 20.0


def sweep_disks() -> None:
    """Unmount what killed runs have left."""
    for line in Path("/proc/mounts").read_text().splitlines():
        place = line.split()[1].replace("\\040", " ")
        found = _NAME.search(place)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            subprocess.run(["umount", "-l", place], check=False)


@contextlib.contextmanager
def _mounted(file: Path) -> Iterator[Path]:
    place = file.with_name(f"lftest-{os.getpid()}-disk-{file.stem}")
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", file, place], check=True)
    try:
        yield place
    finally:
        done = subprocess.run(["umount", place], capture_output=True, check=False)
        if done.returncode:
            subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


@contextlib.contextmanager
def new_disk(file: Path, size: int) -> Iterator[Path]:
    """An empty disk, mounted."""
    sweep_disks()
    file.touch()
    os.truncate(file, size)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", file], check=True)
    with _mounted(file) as place:
        yield place


def copy_disk(file: Path, target: Path) -> None:
    """Copy a disk's file as it is now; who writes to it must have been stopped.

    What the kernel itself writes meanwhile makes the copy one of no moment: then it is made anew.
    """
    end_s = time.monotonic() + _LIMIT_S
    while True:
        subprocess.run(["cp", "--sparse=always", file, target], check=True)
        if subprocess.run(["cmp", "-s", file, target], check=False).returncode == 0:
            return
        assert time.monotonic() < end_s, "the disk does not come to rest"


@contextlib.contextmanager
def after_power_cut(copy: Path) -> Iterator[Path]:
    """A copied disk, mounted as after the power came back."""
    with _mounted(copy) as place:
        yield place
