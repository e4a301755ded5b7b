"""What a fleet needs of this machine: cgroup mounts, the underlay, and its traceless end.

The underlay is a bridge with one cable per virtual host. Everything is named after the fleet's tag,
made if it is missing, and left alone if it is there.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pyroute2 import IPRoute, NetNS, netns

from labfleet_cli.fleet_plan import FleetPlan, VirtualHost

CGROUP_ROOT = Path("/sys/fs/cgroup")
V1_CONTROLLERS = ("hugetlb", "perf_event", "net_cls", "net_prio")
"""crun 1.8 refuses a hybrid tree in which one of these is not mounted."""
_KILL_LIMIT_S = 10.0
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class MachineError(Exception):
    """This machine cannot do it; the message says what and why."""


def run(argv: list[str], *, text: str = "") -> str:
    """Run a program to its end. Raises MachineError with its words."""
    done = subprocess.run(  # noqa: TID251 - the command line may block
        argv, input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise MachineError(f"{' '.join(argv)}: {said}")
    return done.stdout


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock: two `up` of one fleet do not meet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_cgroup_v2() -> bool:
    """Whether the unified tree is the only one."""
    return (CGROUP_ROOT / "cgroup.controllers").exists()


def unmounted_controllers() -> list[str]:
    """Controllers of cgroup v1 that the kernel has and nobody mounted."""
    if is_cgroup_v2():
        return []
    known = {
        line.split()[0]
        for line in Path("/proc/cgroups").read_text().splitlines()[1:]
        if line.split()[3] == "1"
    }
    mounted: set[str] = set()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup":
            mounted |= set(fields[3].split(","))
    return [name for name in V1_CONTROLLERS if name in known and name not in mounted]


def mount_controllers() -> None:
    """Mount the controllers without which crun refuses a v1 tree."""
    for name in unmounted_controllers():
        path = CGROUP_ROOT / name
        path.mkdir(exist_ok=True)
        run(["mount", "-t", "cgroup", "-o", name, "cgroup", str(path)])


def mount_run_dir(plan: FleetPlan) -> None:
    """Have the run directory in memory, as `/run` is wherever an init system runs; again is nothing."""
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    if _file_system(plan.run_dir) != "tmpfs":
        run(["mount", "-t", "tmpfs", "-o", "mode=711,size=1g", plan.name, str(plan.run_dir)])


def _file_system(path: Path) -> str:
    """Type of the file system that holds a directory."""
    return run(["stat", "--file-system", "--format=%T", str(path)]).strip()


def total_memory_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# -- the underlay


def build_underlay(plan: FleetPlan) -> None:
    """Make bridge, namespaces and cables; what is there stays."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with IPRoute() as links:
        if not links.link_lookup(ifname=plan.bridge):
            links.link("add", ifname=plan.bridge, kind="bridge")
        bridge = links.link_lookup(ifname=plan.bridge)[0]
        with contextlib.suppress(Exception):  # the address is there already
            links.addr("add", index=bridge, address=plan.gateway, prefixlen=24)
        links.link("set", index=bridge, state="up")
        for host in plan.hosts:
            _build_host(links, bridge, plan, host)
    run(["nft", "-f", "-"], text=_egress(plan))


def _build_host(links: IPRoute, bridge: int, plan: FleetPlan, host: VirtualHost) -> None:
    if host.namespace not in netns.listnetns():
        netns.create(host.namespace)
    if not links.link_lookup(ifname=host.link):
        peer = {
            "ifname": "eth0",
            "net_ns_fd": f"/run/netns/{host.namespace}",
            "address": host.mac,
        }
        with NetNS(host.namespace) as inside:
            if inside.link_lookup(ifname="eth0"):
                inside.link("del", ifname="eth0")
        links.link("add", ifname=host.link, kind="veth", peer=peer)
    cable = links.link_lookup(ifname=host.link)[0]
    links.link("set", index=cable, master=bridge, state="up")
    with NetNS(host.namespace) as inside:
        inside.link("set", index=1, state="up")
        interface = inside.link_lookup(ifname="eth0")[0]
        known = {dict(each["attrs"])["IFA_ADDRESS"] for each in inside.get_addr(index=interface)}
        if host.address not in known:
            inside.addr("add", index=interface, address=host.address, prefixlen=24)
        inside.link("set", index=interface, state="up")
        if not inside.get_default_routes():
            inside.route("add", dst="default", gateway=plan.gateway)


def _egress(plan: FleetPlan) -> str:
    table = f"{plan.tag}-farm"
    return f"""
table ip {table}
delete table ip {table}
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {plan.subnet} oifname != "{plan.bridge}" masquerade
  }}
}}
"""


# -- the end


def sweep(plan: FleetPlan) -> list[str]:
    """Take away everything of a fleet whose services are down; return what could not go.

    Kills what is in its cgroups, unmounts below its directories, removes namespaces, links, tables
    and files. Works from names alone, so also after a killed run.
    """
    problems: list[str] = []
    _kill(_cgroup_pids(plan.name))
    for path in sorted(_mounts_below(plan), key=len, reverse=True):
        if _libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
            problems.append(f"unmount {path}: {os.strerror(ctypes.get_errno())}")
    _remove_cgroups(plan.name, problems)
    _remove_links(plan)
    if plan.run_dir.is_mount() and _libc.umount2(os.fsencode(plan.run_dir), _MNT_DETACH) != 0:
        problems.append(f"unmount {plan.run_dir}: {os.strerror(ctypes.get_errno())}")
    Path("/run", f"{plan.name}.lock").unlink(missing_ok=True)
    for table in ("farm", "entry"):
        with contextlib.suppress(MachineError):
            run(["nft", "delete", "table", "ip", f"{plan.tag}-{table}"])
    for directory in (plan.run_dir, plan.state_dir):
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            problems.append(f"{directory} could not be removed")
    return problems


def _remove_links(plan: FleetPlan) -> None:
    for name in netns.listnetns():
        if name.startswith(f"{plan.tag}-host"):
            netns.remove(name)
    with IPRoute() as links:
        for link in links.get_links():
            name = link.get_attr("IFLA_IFNAME")
            is_cable = name.startswith(f"{plan.tag}h") and name[len(plan.tag) + 1 :].isdigit()
            if name == plan.bridge or is_cable:
                with contextlib.suppress(Exception):  # gone with its namespace
                    links.link("del", index=link["index"])


def _cgroup_directories(name: str) -> list[Path]:
    roots = [CGROUP_ROOT / name, *CGROUP_ROOT.glob(f"*/{name}")]
    return [root for root in dict.fromkeys(root.resolve() for root in roots) if root.is_dir()]


def _cgroup_pids(name: str) -> set[int]:
    found: set[int] = set()
    for root in _cgroup_directories(name):
        for file in root.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in file.read_text().split()}
    return found


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end_s = time.monotonic() + _KILL_LIMIT_S
    while any(Path(f"/proc/{pid}").exists() and not _is_zombie(pid) for pid in pids):
        if time.monotonic() > end_s:
            return
        time.sleep(0.02)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _mounts_below(plan: FleetPlan) -> list[str]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        path = line.split()[4].encode().decode("unicode_escape")
        if path.startswith((f"{plan.run_dir}/", f"{plan.state_dir}/")):
            found.append(path)
    return found


def _remove_cgroups(name: str, problems: list[str]) -> None:
    end_s = time.monotonic() + _KILL_LIMIT_S
    for root in _cgroup_directories(name):
        for directory in sorted(
            (path for path in (root, *root.rglob("*")) if path.is_dir()), reverse=True
        ):
            while True:
                try:
                    directory.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError as exc:
                    if time.monotonic() > end_s:
                        problems.append(f"{directory}: {exc.strerror}")
                        break
                    time.sleep(0.02)
