"""The engines side by side: a fleet of one virtual host, and a dockerd of our own.

dockerd gets its own mount, network and pid namespaces, so that neither its FORWARD policy nor its
mounts reach this machine, and all that it started dies with it. It is told to end when this process
ends, however that happens; directories and cgroups of a killed run are swept by the next one.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.client import Client
from tests.farm.fleet import running_fleet, sweep_leftovers, until

from labfleet_cli import bootstrap, machine

IMAGE = "busybox"
_SCRATCH = Path("/var/tmp")  # a disk, as the fleet's /var/lib is one
_PREFIX = "lfbench-"
_PROGRAMS = ("dockerd", "containerd", "runc", "iptables", "setpriv", "unshare", "ip")
_READY_LIMIT_S = 30
_END_LIMIT_S = 30
_INSIDE = """set -e
ip link set lo up
mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" overlay /etc
mount -t tmpfs tmpfs /run
exec dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/dockerd.pid" \
    --host "unix://$1/docker.sock" --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$2"
"""


@dataclass(frozen=True)
class Peer:
    """One engine."""

    name: str
    socket: Path
    version: str

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Open a connection."""
        client = Client(self.socket)
        try:
            client.connect()
            yield client
        finally:
            client.close()


def missing_programs() -> list[str]:
    """What dockerd needs and this machine does not have."""
    return [name for name in _PROGRAMS if shutil.which(name) is None]


def sweep() -> None:
    """Remove what runs left behind whose process is gone."""
    sweep_leftovers()
    for folder in _SCRATCH.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            _clear(folder)


def _clear(folder: Path) -> None:
    """Kill what is left in the run's cgroups, then remove these and its directory."""
    problems: list[str] = []
    machine._kill(machine._cgroup_pids(folder.name))
    machine._remove_cgroups(folder.name, problems)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        problems.append(f"{folder} could not be removed")
    if problems:
        raise RuntimeError(f"dockerd left behind: {'; '.join(problems)}")


@contextlib.contextmanager
def labfleet(hosts: int = 1) -> Iterator[Peer]:
    """A fleet of virtual hosts on this machine."""
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX) as config,
        running_fleet(Path(config), hosts=hosts, suffix=f"-bench{hosts}") as fleet,
    ):
        yield _peer("labfleet", fleet.plan.socket)


@contextlib.contextmanager
def dockerd() -> Iterator[Peer]:
    """A private dockerd with the same busybox."""
    folder = _SCRATCH / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
    for name in ("etc", "work", "data", "exec"):
        (folder / name).mkdir(parents=True)
    log = folder / "dockerd.log"
    argv = ["setpriv", "--pdeathsig", "KILL"]
    argv += ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += ["sh", "-c", _INSIDE, "sh", str(folder), folder.name]
    try:
        with log.open("wb") as out:
            outer = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            until(lambda: outer.poll() is not None or _answers(folder), _READY_LIMIT_S)
            if outer.poll() is not None:
                raise RuntimeError(f"dockerd ended: {log.read_text()[-2000:]}")
            _import(folder)
            yield _peer("dockerd", folder / "docker.sock")
        finally:
            _end(outer)
    finally:
        _clear(folder)


def _answers(folder: Path) -> bool:
    try:
        Client(folder / "docker.sock").call("GET", "/version")
    except OSError:
        return False
    return True


def _import(folder: Path) -> None:
    tar = folder / "busybox.tar"
    bootstrap._busybox(tar)
    Client(folder / "docker.sock").upload(
        f"/images/create?fromSrc=-&repo={IMAGE}&tag=latest&changes=CMD+sh", tar
    )


def _end(outer: subprocess.Popen[bytes]) -> None:
    """Ask dockerd to end; past the limit kill it, and with it its pid namespace."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    end_s = time.monotonic() + _END_LIMIT_S
    number = signal.SIGTERM
    while outer.poll() is None:
        with contextlib.suppress(OSError):
            for pid in children.read_text().split():
                os.kill(int(pid), number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            outer.wait(max(end_s - time.monotonic(), 1))
        number = signal.SIGKILL


def _peer(name: str, socket: Path) -> Peer:
    version = Client(socket).call("GET", "/version")["Version"]
    return Peer(name, socket, str(version))
