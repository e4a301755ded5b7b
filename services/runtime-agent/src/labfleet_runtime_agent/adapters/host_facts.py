"""What this host says of itself."""

import os
import platform
import resource
from pathlib import Path

from labfleet_proto.containers import RLIMITS, ContainerSpec
from labfleet_proto.runtime import ContainerStats, InterfaceCounters


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpus() -> frozenset[int]:
    """Numbers of the cores that this process may use."""
    return frozenset(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def hard_nofile() -> int:
    """Own hard limit of open files: no container can have more."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def hard_limits() -> dict[str, int]:
    """Own hard limits by docker's names; -1: none."""
    found = {}
    for name in RLIMITS:
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is not None:
            found[name] = resource.getrlimit(number)[1]
    return found


def name_files(spec: ContainerSpec) -> dict[str, str]:
    """Texts of the files of names for a container in the host's own network, as docker has them."""
    extra = (entry.partition(":") for entry in spec.extra_hosts)
    lines = "".join(f"{address}\t{name}\n" for name, _, address in extra)
    found = {"/etc/hosts": Path("/etc/hosts").read_text() + lines}
    if not (spec.dns or spec.dns_search or spec.dns_options):
        found["/etc/resolv.conf"] = Path("/etc/resolv.conf").read_text()
    return found


def kernel() -> str:
    """Release of the kernel."""
    return platform.release()


def operating_system() -> str:
    """Such as `Debian GNU/Linux 12 (bookworm)`."""
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def host_cpu_ns() -> int:
    """CPU time of all cores since boot, idle included, as docker's percentage wants it."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return sum(int(word) for word in words) * 10_000_000


def interfaces(pid: int) -> dict[str, InterfaceCounters]:
    """Counters of the interfaces in the network namespace of a process."""
    found: dict[str, InterfaceCounters] = {}
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return found
    for line in lines:
        name, _, rest = line.partition(":")
        words = [int(word) for word in rest.split()]
        if name.strip() != "lo" and len(words) >= 12:
            found[name.strip()] = InterfaceCounters(
                rx_bytes=words[0],
                rx_packets=words[1],
                rx_errors=words[2],
                rx_dropped=words[3],
                tx_bytes=words[8],
                tx_packets=words[9],
                tx_errors=words[10],
                tx_dropped=words[11],
            )
    return found


def completed(stats: ContainerStats, pid: int, now_ns: int) -> ContainerStats:
    """Add what does not come from the cgroup."""
    return stats.model_copy(
        update={
            "read_at_ns": now_ns,
            "host_cpu_ns": host_cpu_ns(),
            "online_cpus": cores(),
            "interfaces": interfaces(pid),
        }
    )
