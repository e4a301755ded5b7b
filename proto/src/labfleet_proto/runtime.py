"""What the api asks of the runtime agent of one host: prompt jobs. Byte streams: `streams`."""

from labfleet_proto.containers import ContainerRecord, Limits, Observation
from labfleet_proto.ids import ContainerId, ExecId, TenantId
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message, Nothing


class Reconcile(Message):
    """Bring the container to its record's goal now. Idempotent by generation; an older one is `stale`."""

    record: ContainerRecord


class Signal(Message):
    """Send a signal to the container's init."""

    container: ContainerId
    signal: str
    """Such as `SIGHUP`, `HUP` or `1`."""


class AdmitLimits(Message):
    """Ask whether a container may have other limits; room for more is held for 30 s."""

    container: ContainerId
    limits: Limits


class CreateExec(Message):
    """Prepare one more process in a running container."""

    exec: ExecId
    container: ContainerId
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    is_tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    detach_keys: str = ""
    """Codes of the keys that detach, as hexadecimal digits; none means docker's default."""
    height: int = 0
    width: int = 0
    """Size of the terminal, 0 for the kernel's own."""
    is_privileged: bool = False
    """With all capabilities; only operators ask for it."""


class ExecRef(Message):
    """Names an exec."""

    container: ContainerId
    exec: ExecId


class ExecStatus(Message):
    """State of an exec."""

    spec: CreateExec
    is_running: bool
    exit_code: int | None
    pid: int


class Resize(Message):
    """New size of a terminal, in characters."""

    container: ContainerId
    exec: ExecId | None
    height: int
    width: int


class ContainerRef(Message):
    """Names a container."""

    container: ContainerId


class Top(Message):
    """List processes; `ps_args` as given to `docker top`."""

    container: ContainerId
    ps_args: str = "-ef"


class TopTable(Message):
    """Processes as `ps` prints them."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


class InterfaceCounters(Message):
    """Counters of one interface since the container's start."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class DeviceIo(Message):
    """What a container has read from and written to one device."""

    major: int
    minor: int
    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0


class ContainerStats(Message):
    """One sample of a container's use."""

    read_at_ns: int
    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    host_cpu_ns: int = 0
    """Sum over all cores since boot, for docker's percentage."""
    online_cpus: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_bytes: int = 0
    memory_cache_bytes: int = 0
    """Inactive file cache, which docker subtracts."""
    memory_limit_bytes: int = 0
    pids: int = 0
    pids_limit: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    interfaces: dict[str, InterfaceCounters] = {}
    cgroup_version: int = 1
    devices: tuple[DeviceIo, ...] = ()
    per_cpu_ns: tuple[int, ...] = ()
    """Of version 1 only."""
    periods: int = 0
    memory_most_bytes: int = 0
    """Of version 1 only, as is the next."""
    memory_failures: int = 0
    memory_table: dict[str, int] = {}
    """The kernel's `memory.stat`."""


class StatPath(Message):
    """Ask for the stat of a path inside a container."""

    container: ContainerId
    path: str
    shown_as: str = ""
    """How the client names the container, for messages."""


class PathStat(Message):
    """What docker sends as `X-Docker-Container-Path-Stat`."""

    name: str
    size_bytes: int
    mode: int
    """Go's os.FileMode bits, as docker sends them."""
    mtime_ns: int
    link_target: str = ""


class ContainerSizes(Message):
    """Bytes of a container's files."""

    writable_bytes: int
    """What it wrote (docker's `SizeRw`)."""
    total_bytes: int
    """With its image (docker's `SizeRootFs`)."""


class VolumeRef(Message):
    """Names a volume whose home is this host."""

    tenant: TenantId
    name: str


class VolumeRefs(Message):
    """Names volumes of one tenant whose home is this host."""

    tenant: TenantId
    names: tuple[str, ...]


class VolumeSizes(Message):
    """Bytes on disk by volume."""

    sizes_bytes: dict[str, int]


class AgentCheck(Message):
    """Findings of the agent for `labfleet fsck`: each names a leak or a lack."""

    findings: tuple[str, ...]


RECONCILE = JobKind("reconcile", "runtime-agent", Reconcile, Observation, timeout_s=60.0)
"""Start, stop and remove: answers when the goal is reached, or raises what prevented it.

A start whose command cannot be run raises CommandNotRunnableError; the attempt is then observed
`EXITED` with code 127 or 126. A stop takes up to the record's grace; the caller adds that to the limit.
"""
SIGNAL = JobKind("kill", "runtime-agent", Signal, Nothing)
ADMIT_LIMITS = JobKind("admit_limits", "runtime-agent", AdmitLimits, Nothing)
"""Raises NoRoomError naming what is lacking, InvalidRequestError for what the host does not have.

Of a container that does not run nothing is held: its next start is admitted anew.
"""
CREATE_EXEC = JobKind("create_exec", "runtime-agent", CreateExec, Nothing)
START_EXEC = JobKind("start_exec", "runtime-agent", ExecRef, Nothing)
"""Detached start; attached ones go over the data port (`AttachExec`)."""
INSPECT_EXEC = JobKind("inspect_exec", "runtime-agent", ExecRef, ExecStatus)
RESIZE = JobKind("resize", "runtime-agent", Resize, Nothing)
TOP = JobKind("top", "runtime-agent", Top, TopTable)
STATS = JobKind("stats", "runtime-agent", ContainerRef, ContainerStats)
STAT_PATH = JobKind("stat_path", "runtime-agent", StatPath, PathStat)
SIZES = JobKind("sizes", "runtime-agent", ContainerRef, ContainerSizes, timeout_s=20.0)
MEASURE_VOLUMES = JobKind(
    "measure_volumes", "runtime-agent", VolumeRefs, VolumeSizes, timeout_s=30.0
)
REMOVE_VOLUME = JobKind("remove_volume", "runtime-agent", VolumeRef, Nothing)
CHECK_AGENT = JobKind("check_agent", "runtime-agent", Nothing, AgentCheck, timeout_s=30.0)
