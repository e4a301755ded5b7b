"""What the kernel and the disk still have of a fleet's containers, seen from outside the services."""

import os
import time
from pathlib import Path

from tests.farm.fleet import Fleet

from labfleet_cli import machine

_HEX = frozenset("0123456789abcdef")


def traces(fleet: Fleet) -> list[str]:
    """Namespaces, mounts, cgroups, processes and files of containers, one line each.

    Namespaces that wait ready for the next container are no trace.
    """
    return [
        *_namespaces(fleet),
        *_mounts(fleet),
        *_cgroups(fleet),
        *_processes(fleet),
        *_files(fleet),
    ]


def until_traceless(fleet: Fleet) -> None:
    """Wait until containers have left nothing; fails with what is there after ten seconds."""
    end_s = time.monotonic() + 10
    while found := traces(fleet):
        assert time.monotonic() < end_s, "\n".join(found)
        time.sleep(0.1)


def _namespaces(fleet: Fleet) -> list[str]:
    return [f"namespace {path}" for path in (fleet.plan.run_dir / "hosts").glob("*/names/*")]


def _mounts(fleet: Fleet) -> list[str]:
    return [
        f"mount {path}"
        for path in machine._mounts_below(fleet.plan)
        if "/mounts/" in path or "/containers/" in path
    ]


def _cgroups(fleet: Fleet) -> list[str]:
    return [
        f"cgroup {path}"
        for root in machine._cgroup_directories(fleet.plan.name)
        for path in root.rglob("*")
        if path.is_dir() and _is_id(path.name)
    ]


def _processes(fleet: Fleet) -> list[str]:
    """Monitors, and whatever else names one of this fleet's container directories."""
    mark = os.fsencode(f"{fleet.plan.state_dir}/hosts/")
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            words = _command(folder)
            if mark in words and b"/containers/" in words:
                found.append(f"process {folder.name}: {words.decode(errors='replace')[:120]!r}")
    return found


def _command(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def _files(fleet: Fleet) -> list[str]:
    folders = (fleet.plan.state_dir / "hosts").glob("*/containers/*")
    return [f"files {path}" for path in folders if _is_id(path.name)]


def _is_id(name: str) -> bool:
    return len(name) == 64 and set(name) <= _HEX
