"""What the api asks of the runtime agent of one host: prompt jobs and byte streams."""

from typing import Annotated, Literal

from pydantic import Field

from labfleet_proto.builds import BuildImage
from labfleet_proto.containers import ContainerRecord, Limits, Observation
from labfleet_proto.ids import ContainerId, ExecId, HostId, TenantId
from labfleet_proto.image_streams import AddImage, LoadImages, PullImage, SaveImages
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


class HeldLine(Message):
    """The beginning of a line whose end is not written yet."""

    is_stderr: bool
    stamp: str
    text: str
    """Its bytes, each as the character of that number."""
    is_shown: bool
    """Whether its very beginning, with time and details, was sent already."""


class LogPosition(Message):
    """Between two lines of a container's log, also when its files have moved on."""

    since: int = 0
    """The file is newer than the rotated one of this number."""
    inode: int = 0
    first: str = ""
    """Time of the file's first line: an inode may be used again."""
    offset: int = 0
    held: tuple[HeldLine, ...] = ()


class AttachContainer(Message):
    """Attach to the streams of a container, which may not have started yet.

    Output is docker's multiplexed frames without a TTY, raw with one. The stream ends when the container exits.
    """

    op: Literal["attach"] = "attach"
    container: ContainerId
    with_stdin: bool = False
    with_stdout: bool = True
    with_stderr: bool = True
    with_logs: bool = False
    """Replay what was logged first."""
    is_live: bool = True
    """Follow after the replay (docker's `stream=1`)."""
    detach_keys: str = ""
    """As in `CreateExec`; acted on with a TTY only."""
    is_framed: bool = True
    """Without a TTY, whether output is framed; else both streams are one."""
    is_in_blocks: bool = False
    """Output comes as `labfleet_chassis.output_blocks`, unframed; its client may come back after a cut."""
    resume: LogPosition | None = None
    """Go on from here, without as many bytes of each stream as the client has had since."""
    skip_stdout: int = 0
    skip_stderr: int = 0


class AttachExec(Message):
    """Start an exec and attach to it.

    Output is framed unless `is_tty`, which is the client's word, whatever the exec itself has.
    """

    op: Literal["exec"] = "exec"
    container: ContainerId
    exec: ExecId
    is_tty: bool
    height: int = 0
    width: int = 0


class LogBlock(Message):
    """Head of a piece of a log's stream, a line of JSON; `size_bytes` of whole entries follow it.

    Whoever has a block whole can go on from its `position`: nothing is lost, and nothing comes again.
    """

    size_bytes: int
    position: LogPosition
    is_end: bool = False
    """There is nothing more to come; a stream that ends without this was cut."""


class ReadLogs(Message):
    """Read logs as blocks of docker's frames, or of raw text with a TTY."""

    op: Literal["logs"] = "logs"
    container: ContainerId
    with_stdout: bool = True
    with_stderr: bool = True
    follow: bool = False
    since_ns: int = 0
    until_ns: int = 0
    """0 means no limit."""
    tail: int | None = None
    """Number of last lines; None for all."""
    with_timestamps: bool = False
    details: str | None = None
    """What stands before each line, docker's `details`; None for nothing."""
    position: LogPosition | None = None
    """Go on from here; `tail` counts no more."""


class ReadArchive(Message):
    """Read a path of a container as a tar stream with container ids."""

    op: Literal["archive_get"] = "archive_get"
    container: ContainerId
    path: str
    shown_as: str = ""
    """How the client names the container, for messages."""


class WriteArchive(Message):
    """Unpack a tar stream into a directory of a container.

    The peer sends the tar and half-closes; the agent answers with one JSON line, a `StreamEnd`.
    """

    op: Literal["archive_put"] = "archive_put"
    container: ContainerId
    path: str
    refuse_dir_overwrite: bool = False
    """Refuse to replace a directory by a file or the reverse (docker's `noOverwriteDirNonDir`)."""
    keep_ownership: bool = False
    """docker's `copyUIDGID`: everything becomes the container's user's, if it has one."""
    shown_as: str = ""
    """How the client names the container, for messages."""


class ReadChanges(Message):
    """Read what a container changed of its image, as docker's JSON list."""

    op: Literal["changes"] = "changes"
    container: ContainerId


class ReadLayer(Message):
    """Read what a container changed of its image as an uncompressed layer (OCI image-spec)."""

    op: Literal["layer"] = "layer"
    container: ContainerId
    is_still: bool = False
    """Let the container stand still meanwhile, if it runs."""


class ExportFiles(Message):
    """Read all files of a container but those of its volumes, as a tar stream."""

    op: Literal["export"] = "export"
    container: ContainerId


StreamRequest = Annotated[
    AttachContainer
    | AttachExec
    | ReadLogs
    | ReadArchive
    | WriteArchive
    | ReadChanges
    | ReadLayer
    | ExportFiles
    | SaveImages
    | LoadImages
    | PullImage
    | AddImage
    | BuildImage,
    Field(discriminator="op"),
]


class Ticket(Message):
    """Leave to open one byte stream on a host's data port: signed, short-lived, for one use."""

    host: HostId
    tenant: TenantId
    request: StreamRequest
    expires_at_ns: int
    nonce: str
