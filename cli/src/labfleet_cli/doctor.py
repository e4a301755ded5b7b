"""What this machine has, lacks, and what to do about it."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labfleet_cli import machine

Level = Literal["ok", "hint", "lack"]

_CAP_SYS_RESOURCE = 24
_LEAST_FREE_BYTES = 2 << 30
_LEAST_MEMORY_BYTES = 2 << 30
_NEEDED = {
    "buildah": "buildah",
    "crun": "crun",
    "conmon": "conmon",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ps": "procps",
}
_USEFUL = {
    "busybox": ("busybox-static", "`labfleet image bootstrap`"),
    "mmdebstrap": ("mmdebstrap", "`labfleet image bootstrap`"),
    "tini-static": ("tini", "`docker run --init`"),
}


@dataclass(frozen=True)
class Finding:
    """One line of `labfleet doctor`; `lack` means that a fleet cannot run here."""

    level: Level
    what: str
    todo: str = ""


def examine() -> list[Finding]:
    """Look at everything."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _root,
        _programs,
        _kernel,
        _cgroups,
        _room,
        _clients,
    )
    return [finding for check in checks for finding in check()]


def _root() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("ok", "running as root")
    else:
        yield Finding("lack", "not running as root", "run it as root: sudo make up")
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    if not effective >> _CAP_SYS_RESOURCE & 1:
        yield Finding(
            "hint",
            "CAP_SYS_RESOURCE is missing: hard limits of this session also bound containers",
            "nothing, unless containers need more open files than `ulimit -Hn` shows",
        )


def _programs() -> Iterator[Finding]:
    for program, package in _NEEDED.items():
        if shutil.which(program):
            yield Finding("ok", f"{program} is installed")
        else:
            yield Finding("lack", f"{program} is missing", f"apt-get install {package}")
    for program, (package, user) in _USEFUL.items():
        if not shutil.which(program):
            yield Finding(
                "hint", f"{program} is missing: {user} needs it", f"apt-get install {package}"
            )


def _kernel() -> Iterator[Finding]:
    systems = Path("/proc/filesystems").read_text().split()
    if "overlay" in systems:
        yield Finding("ok", "overlayfs")
    else:
        yield Finding("lack", "overlayfs is not in this kernel", "modprobe overlay")
    spaces = Path("/proc/sys/user/max_user_namespaces")
    if spaces.exists() and int(spaces.read_text()) > 0:
        yield Finding("ok", "user namespaces")
    else:
        yield Finding(
            "lack", "user namespaces are off", "sysctl -w user.max_user_namespaces=100000"
        )
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release >= (5, 19):
        yield Finding("ok", f"kernel {os.uname().release}: idmapped overlayfs")
    else:
        yield Finding(
            "lack",
            f"kernel {os.uname().release} cannot idmap overlayfs layers",
            "use Debian 12 or newer (kernel 5.19 or newer)",
        )


def _cgroups() -> Iterator[Finding]:
    if machine.is_cgroup_v2():
        yield Finding("ok", "cgroup v2")
        return
    missing = machine.unmounted_controllers()
    if missing:
        yield Finding(
            "hint",
            f"cgroup v1 without {', '.join(missing)}: crun refuses such a tree",
            "`labfleet up` mounts them",
        )
    else:
        yield Finding("ok", "cgroup v1, complete")


def _room() -> Iterator[Finding]:
    free = shutil.disk_usage("/var/lib").free
    if free < _LEAST_FREE_BYTES:
        yield Finding("lack", f"{free >> 20} MiB free below /var/lib", "free at least 2 GiB")
    else:
        yield Finding("ok", f"{free >> 30} GiB free below /var/lib")
    memory = machine.total_memory_bytes()
    if memory < _LEAST_MEMORY_BYTES:
        yield Finding("hint", f"only {memory >> 20} MiB of memory", "a host needs 4 GiB or more")
    else:
        yield Finding("ok", f"{memory >> 30} GiB of memory")


def _clients() -> Iterator[Finding]:
    if shutil.which("docker"):
        yield Finding("ok", "a docker command line")
    else:
        yield Finding(
            "hint",
            "no docker command line",
            "any Docker client works: apt-get install docker-cli (Debian 13) or docker.io",
        )
    if shutil.which("dockerd") and Path("/run/docker.sock").exists():
        yield Finding(
            "hint",
            "a dockerd runs on this machine: it sets the FORWARD policy to DROP",
            "containers then have no way out: iptables -P FORWARD ACCEPT",
        )
