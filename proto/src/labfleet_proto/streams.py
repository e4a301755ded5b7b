"""Byte streams of the data ports: what is asked of a host or the image store, and the ticket for it."""

from typing import Annotated, Literal

from pydantic import Field

from labfleet_proto.builds import BuildImage
from labfleet_proto.ids import ContainerId, ExecId, HostId, TenantId
from labfleet_proto.image_streams import AddImage, LoadImages, PullImage, SaveImages
from labfleet_proto.layers import ReadBlob
from labfleet_proto.message import Message


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
    after_run: int | None = None
    """No later run than this one had begun: the next one's output stands here."""


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
    | BuildImage
    | ReadBlob,
    Field(discriminator="op"),
]


class Ticket(Message):
    """Leave to open one byte stream on a host's data port: signed, short-lived, for one use."""

    host: HostId
    tenant: TenantId
    request: StreamRequest
    expires_at_ns: int
    nonce: str
