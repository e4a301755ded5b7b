"""The OCI runtime-spec of a student's container, in one pure function (`runtime.md`)."""

from dataclasses import dataclass, field
from typing import Any

from labfleet_proto import privileges
from labfleet_proto.containers import ContainerSpec
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.powers import Namespace
from labfleet_runtime_agent.core import power
from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER
from labfleet_runtime_agent.core.power import HostPower

_NO_LIMIT = (1 << 64) - 1
"""RLIM_INFINITY."""
_GROUPS = "/sys/fs/cgroup"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/kernel/debug",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True)
class Identity:
    """Who the process runs as, looked up in the image; ids inside the container."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True)
class VolumeSource:
    """A volume ready to be bound."""

    source: str
    target: str
    is_read_only: bool
    propagation: str = "rprivate"


@dataclass(frozen=True)
class HostPart:
    """What the host adds to the request: paths, ids, limits of the agent itself."""

    rootfs: str
    uid_base: int
    netns_path: str
    sysfs_path: str
    """Bound at /sys read-only; empty: an empty read-only /sys."""
    files: dict[str, str]
    """Target to source of the files made for the container: hosts, hostname, resolv.conf."""
    volumes: tuple[VolumeSource, ...]
    hard_nofile: int
    """The agent's own hard limit: crun cannot go beyond it."""
    hard_limits: dict[str, int] = field(default_factory=dict)
    """The agent's other hard limits by docker's names; -1: none."""
    joined: dict[str, str] = field(default_factory=dict)
    """Namespaces to join, by their kinds; that of users maps the same ids. Others are new."""
    shm_path: str = ""
    """Shared memory that others have, too; empty: the container's own."""
    init_path: str = ""
    """Program bound at /sbin/docker-init with `--init`; empty if the host has none."""
    power: HostPower = field(default_factory=HostPower)


def build(spec: ContainerSpec, host: HostPart, who: Identity) -> dict[str, Any]:
    """Return `config.json` for one attempt.

    Raises:
        ForbiddenError: a capability or sysctl outside the allow-list.
        InvalidRequestError: a working directory below /proc, or no command.
    """
    if not spec.argv:
        raise InvalidRequestError("No command specified")
    linux: dict[str, Any] = {
        "namespaces": _namespaces(spec, host),
        "sysctl": _sysctls(spec),
        "maskedPaths": power.masked(spec, MASKED_PATHS),
        "readonlyPaths": power.read_only(spec, READONLY_PATHS),
    }
    if not spec.shares_with_host("user"):
        linux |= {
            "uidMappings": [_mapping(host.uid_base)],
            "gidMappings": [_mapping(host.uid_base)],
        }
    calls = power.filter_of(spec, capabilities(spec, host.power), host.power)
    if calls is not None:
        linux["seccomp"] = calls
    if host.power.devices:
        linux["devices"] = power.devices(host.power)
    ways = {volume.propagation.removeprefix("r") for volume in host.volumes}
    if ways & {"shared", "slave"}:  # else nothing passes through the root
        linux["rootfsPropagation"] = "rshared" if "shared" in ways else "rslave"
    document = {
        "ociVersion": "1.0.2",
        "process": process(spec, host, who),
        "root": {"path": host.rootfs, "readonly": spec.is_rootfs_read_only},
        "hostname": spec.hostname,
        **({"domainname": spec.domainname} if spec.domainname else {}),
        "mounts": _mounts(spec, host),
        "linux": linux,
    }
    if spec.shares_with_host("uts"):
        del document["hostname"]
    return document


def _namespaces(spec: ContainerSpec, host: HostPart) -> list[dict[str, str]]:
    before: tuple[Namespace, ...] = ("pid", "ipc", "uts")
    after: tuple[Namespace, ...] = ("user", "cgroup")
    own = [kind for kind in before if not spec.shares_with_host(kind)]
    more = [kind for kind in after if not spec.shares_with_host(kind)]
    found: list[dict[str, str]] = [
        {"type": kind, **({"path": host.joined[kind]} if kind in host.joined else {})}
        for kind in (*own, "mount", *more)
    ]
    if not spec.shares_with_host("network"):
        found.append({"type": "network", "path": host.netns_path})
    return found


def process(
    spec: ContainerSpec, host: HostPart, who: Identity, *, is_privileged: bool = False
) -> dict[str, Any]:
    """Return the `process` object: of the container itself, and the model for execs."""
    argv = list(spec.argv)
    if spec.with_init and host.init_path:
        argv = ["/sbin/docker-init", "--", *argv]
    groups = list(dict.fromkeys((who.gid, *who.groups)))  # as docker: CVE-2022-36109
    held = [f"CAP_{name}" for name in capabilities(spec, host.power, is_privileged=is_privileged)]
    effective = held if who.uid == 0 else []
    found = {
        "terminal": spec.is_tty,
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": groups},
        "args": argv,
        "env": environment(spec, who),
        "cwd": working_dir(spec.working_dir),
        "capabilities": {"bounding": held, "effective": effective, "permitted": effective},
        "rlimits": _rlimits(spec, host),
        "noNewPrivileges": spec.no_new_privileges,
    }
    if spec.is_tty and all(spec.terminal_size):
        found["consoleSize"] = dict(zip(("height", "width"), spec.terminal_size, strict=True))
    if spec.oom_score_adj:
        found["oomScoreAdj"] = max(spec.oom_score_adj, host.power.least_oom_score_adj)
    return found


def _rlimits(spec: ContainerSpec, host: HostPart) -> list[dict[str, Any]]:
    """What was asked for, within what the host may give; open files are always limited."""
    asked = {each.name: each for each in spec.ulimits}
    most = min(spec.limits.nofile, host.hard_nofile)
    files = asked.pop("nofile", None)
    soft = most if files is None else within(files.soft, most)
    found = [{"type": "RLIMIT_NOFILE", "hard": most, "soft": soft}]
    for name, each in asked.items():
        hard = within(each.hard, host.hard_limits.get(name, -1))
        soft = within(each.soft, hard)
        found.append(
            {
                "type": f"RLIMIT_{name.upper()}",
                "hard": _NO_LIMIT if hard < 0 else hard,
                "soft": _NO_LIMIT if soft < 0 else soft,
            }
        )
    return found


def within(value: int, most: int) -> int:
    """The smaller of two limits, where -1 is none."""
    if most < 0:
        return value
    return most if value < 0 else min(value, most)


capabilities = power.capabilities


def environment(spec: ContainerSpec, who: Identity) -> list[str]:
    """Return the environment with docker's additions: PATH, HOSTNAME, TERM, HOME."""
    named = {entry.partition("=")[0] for entry in spec.env}
    added = []
    if "PATH" not in named:
        added.append(f"PATH={DEFAULT_PATH}")
    if "HOSTNAME" not in named:
        added.append(f"HOSTNAME={spec.hostname}")
    if spec.is_tty and "TERM" not in named:
        added.append("TERM=xterm")
    given = [entry for entry in (*spec.link_env, *spec.env) if "=" in entry]
    if "HOME" not in named:
        given.append(f"HOME={who.home}")
    return added + given


def working_dir(path: str) -> str:
    """Return the directory to start in. Raises InvalidRequestError below /proc (CVE-2024-21626)."""
    cwd = path or "/"
    if not cwd.startswith("/"):
        raise InvalidRequestError(
            f"the working directory '{cwd}' is invalid, it needs to be an absolute path"
        )
    if _crosses_proc(cwd):
        raise InvalidRequestError(f"the working directory '{cwd}' may not lie below /proc")
    return cwd


def _crosses_proc(path: str) -> bool:
    """Whether the way along `path` touches /proc, also by `//`, `.` and `..`."""
    way: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del way[-1:]
        elif part not in ("", "."):
            way.append(part)
        if way[:1] == ["proc"]:
            return True
    return False


def _mapping(base: int) -> dict[str, int]:
    return {"containerID": 0, "hostID": base, "size": IDS_PER_CONTAINER}


def _sysctls(spec: ContainerSpec) -> dict[str, str]:
    """The network's own are set by the network service: its namespace belongs to the host."""
    if spec.powers is None:
        privileges.check_sysctls(spec.sysctls)
    return {name: value for name, value in spec.sysctls.items() if not is_of_network(name)}


def is_of_network(sysctl: str) -> bool:
    """Whether a setting belongs to the network namespace."""
    return sysctl.startswith("net.")


def _mount(target: str, kind: str, options: str, source: str = "") -> dict[str, Any]:
    return {
        "destination": target,
        "type": kind,
        "source": source or kind,
        "options": options.split(","),
    }


def _bind(target: str, source: str, *, is_read_only: bool) -> dict[str, Any]:
    access = "ro" if is_read_only else "rw"
    return _mount(target, "bind", f"rbind,rprivate,{access},nosuid,nodev", source)


def _mounts(spec: ContainerSpec, host: HostPart) -> list[dict[str, Any]]:
    is_open = power.is_open(spec)
    wished = [
        _mount(target, "tmpfs", _tmpfs(given, is_open)) for target, given in spec.tmpfs.items()
    ]
    wished += [
        _mount(volume.target, "bind", _volume_options(volume, is_open), volume.source)
        for volume in host.volumes
    ]
    mounts = _without(_own_mounts(spec, host), {each["destination"] for each in wished}) + wished
    mounts += [_bind(target, source, is_read_only=False) for target, source in host.files.items()]
    if spec.with_init and host.init_path:
        mounts.append(_bind("/sbin/docker-init", host.init_path, is_read_only=True))
    return sorted(
        mounts,
        key=lambda mount: mount["destination"].count("/") if mount["destination"] != "/" else 0,
    )


def _own_mounts(spec: ContainerSpec, host: HostPart) -> list[dict[str, Any]]:
    mounts = [
        _mount("/proc", "proc", "nosuid,noexec,nodev"),
        _mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        _mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        _mount("/dev/shm", "tmpfs", f"nosuid,noexec,nodev,mode=1777,size={spec.limits.shm_bytes}"),  # noqa: S108
        _mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
    ]
    shm = "/dev/shm" if spec.shares_with_host("ipc") else host.shm_path  # noqa: S108
    if spec.shm == "none":
        del mounts[3]
    elif shm:
        mounts[3] = _mount("/dev/shm", "bind", "rbind,rprivate,nosuid,noexec,nodev", shm)  # noqa: S108
    is_privileged = spec.powers is not None and spec.powers.is_privileged
    if is_privileged or spec.shares_with_host("network"):
        access = "rw" if is_privileged else "ro"
        mounts.append(_mount("/sys", "sysfs", f"nosuid,noexec,nodev,{access}"))
    elif host.sysfs_path:
        mounts.append(
            _mount("/sys", "bind", "rbind,rprivate,ro,nosuid,noexec,nodev", host.sysfs_path)
        )
    else:
        mounts.append(_mount("/sys", "tmpfs", "ro,nosuid,noexec,nodev,mode=555,size=0"))
    if is_privileged:
        mounts.append(_mount(_GROUPS, "bind", "rbind,rprivate,nosuid,noexec,nodev,rw", _GROUPS))
    return mounts


def _without(mounts: list[dict[str, Any]], taken: set[str]) -> list[dict[str, Any]]:
    """Docker's rule: what a user mounts stands for what would be there, and /dev for all below it."""
    has_dev = "/dev" in taken
    return [
        mount
        for mount in mounts
        if mount["destination"] not in taken
        and not (has_dev and mount["destination"].startswith("/dev/"))
    ]


def _tmpfs(given: str, is_open: bool) -> str:  # noqa: FBT001
    names = {"size", "mode", "uid", "gid", "ro", "rw", "exec", "noexec"}
    if is_open:
        names |= {"suid", "dev", "nosuid", "nodev"}
    allowed = [word for word in given.split(",") if word.partition("=")[0] in names]
    wary = [f"no{word}" for word in ("suid", "dev", "exec") if word not in allowed]
    return ",".join([*wary, *allowed])


def _volume_options(volume: VolumeSource, is_open: bool) -> str:  # noqa: FBT001
    access = "ro" if volume.is_read_only else "rw"
    wary = "" if is_open else "nosuid,nodev,"
    return f"rbind,{volume.propagation},{wary}{access}"
