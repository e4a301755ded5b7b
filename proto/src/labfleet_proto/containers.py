"""Containers: the desired record, the observation, and the table of states."""

from enum import IntEnum, StrEnum
from typing import Literal

from pydantic import JsonValue

from labfleet_proto.errors import IllegalTransitionError
from labfleet_proto.healthchecks import Health, HealthCheck
from labfleet_proto.ids import ContainerId, HostId, NetworkId, TenantId
from labfleet_proto.images import ImagePin
from labfleet_proto.message import Message
from labfleet_proto.networks import Endpoint
from labfleet_proto.powers import HostPowers, Namespace
from labfleet_proto.resources import Resources
from labfleet_proto.restarts import RestartPolicy


class State(IntEnum):
    """States of one run of an attempt, in order: within a run they only grow."""

    ASSIGNED = 0
    PREPARING = 10
    CREATED = 20
    RUNNING = 30
    STOPPING = 40
    EXITED = 50
    REMOVED = 60


TRANSITIONS: dict[State, frozenset[State]] = {
    State.ASSIGNED: frozenset({State.PREPARING, State.EXITED, State.REMOVED}),
    State.PREPARING: frozenset({State.CREATED, State.EXITED, State.REMOVED}),
    State.CREATED: frozenset({State.RUNNING, State.EXITED, State.REMOVED}),
    State.RUNNING: frozenset({State.STOPPING, State.EXITED, State.REMOVED}),
    State.STOPPING: frozenset({State.EXITED, State.REMOVED}),
    State.EXITED: frozenset({State.REMOVED}),
    State.REMOVED: frozenset(),
}
"""Every allowed step within one run. A restart is a new run, never a step back."""


def awaits_restart(record: "ContainerRecord", seen: "Observation | None") -> bool:
    """Whether a container has ended and its host is about to run it again by its restart policy."""
    return (
        seen is not None
        and seen.state is State.EXITED
        and seen.restart_at_ns > 0
        and record.goal is Goal.RUNNING
        and seen.attempt == record.attempt
    )


def check_transition(container: ContainerId, old: State, new: State) -> None:
    """Raise `IllegalTransitionError` naming the container if `old -> new` is not in the table."""
    if new not in TRANSITIONS[old]:
        raise IllegalTransitionError(f"container {container}: {old.name} -> {new.name}")


class Goal(StrEnum):
    """What the owner wants of a container."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    REMOVED = "removed"


class Limits(Message):
    """Limits of one container; none can be omitted (`runtime.md`)."""

    memory_bytes: int
    """With swap 0 beyond it. At least 6 MiB, docker's own minimum."""
    cpu_millis: int
    pids: int
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    """As asked for by `--cpu-period` and `--cpu-quota`, to be shown; `cpu_millis` is what holds."""
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    log_bytes: int = 64 << 20
    """By how much a file of its log may outgrow its size while no agent runs."""
    shm_bytes: int = 64 << 20
    nofile: int = 20_000
    memory_reservation_bytes: int = 0
    """What the kernel leaves to it when memory is short; 0: nothing."""
    cpuset_mems: str | None = None
    blkio_weight: int | None = None
    """10 to 1000, where the host's kernel has it."""


RLIMITS = (
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
).split()
"""Docker's names of limits of a process (setrlimit(2))."""


class Ulimit(Message):
    """One limit of the container's processes, as asked; -1 means none. A host gives no more than it has."""

    name: str
    soft: int
    hard: int


class LogSettings(Message):
    """Where what a container prints is kept, and how much of it."""

    driver: str = "json-file"
    """Docker's word: `json-file`, `local` or `none`."""
    options: dict[str, str] = {}
    """As the client wrote them."""
    file_bytes: int = 32 << 20
    """A file that has grown so large is followed by the next."""
    files: int = 2
    """How many are kept, the newest included."""


class PortBinding(Message):
    """A published port."""

    container_port: int
    protocol: str = "tcp"
    """`tcp` or `udp`."""
    host_address: str = "0.0.0.0"  # noqa: S104 - docker's default
    host_port: int | None = None
    """None until the scheduler has chosen one from the fleet's range."""
    host_port_first: int | None = None
    """With `host_port_last`: the range to choose from instead."""
    host_port_last: int | None = None


class VolumeMount(Message):
    """A named volume in a container."""

    volume: str
    target: str
    read_only: bool = False
    copy_up: bool = True
    """Fill an empty volume with the image's files at `target`, as docker does."""
    is_anonymous: bool = False
    """Made for this container: removed with it where docker does so."""
    subpath: str = ""
    """Directory within the volume; empty: the whole."""
    labels: dict[str, str] = {}
    """Of the volume, if it is made for this container."""
    driver_opts: dict[str, str] = {}
    """Of the volume: as asked until it is placed, then as the volume has them."""


class HostBind(Message):
    """A path of the host in a container: only the operators have them."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    mode: str = ""
    """As it was asked; shown by inspect."""
    is_made: bool = False
    """Make a directory where there is nothing, as docker does for `--volume`."""


class NetworkAttachment(Message):
    """A network that the container joins when it starts."""

    network_id: NetworkId
    network_name: str
    aliases: tuple[str, ...] = ()
    address: str | None = None
    """Asked for by `--ip`."""
    mac: str | None = None
    """Asked for by `--mac-address`."""
    links: dict[str, str] = {}
    """Names that only this container knows, and the name in this network that each means."""
    driver_opts: dict[str, str] = {}
    link_local: tuple[str, ...] = ()
    gateway_priority: int = 0
    address6: str | None = None
    """Asked for by `--ip6`; without effect in a network without IPv6, as in docker."""


class ContainerSpec(Message):
    """What to run: the request merged with the image's config and the defaults."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str = "/"
    user: str = ""
    """`user`, `uid`, `user:group`; looked up inside the image's own /etc/passwd."""
    hostname: str
    domainname: str = ""
    labels: dict[str, str] = {}
    is_tty: bool = False
    terminal_size: tuple[int, int] = (0, 0)
    """Height and width in characters that a terminal begins with; 0: the kernel's own beginning."""
    open_stdin: bool = False
    stdin_once: bool = False
    attach: tuple[str, ...] = ()
    """Which of stdin, stdout, stderr the client said it would attach; echoed by inspect."""
    stop_signal: str = "SIGTERM"
    stop_timeout_s: int = 10
    limits: Limits
    ports: tuple[PortBinding, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    """Such as `80/tcp`, of the image and the request."""
    mounts: tuple[VolumeMount, ...] = ()
    host_binds: tuple[HostBind, ...] = ()
    tmpfs: dict[str, str] = {}
    """Target to mount options."""
    network_mode: str = "default"
    """As the client wrote it: `default`, `bridge`, `none` or a network's name."""
    networks: tuple[NetworkAttachment, ...] = ()
    shares_network_of: ContainerId | None = None
    """With mode `container:<id>`: it has no networks of its own."""
    auto_remove: bool = False
    restart: RestartPolicy = RestartPolicy()
    healthcheck: HealthCheck | None = None
    is_rootfs_read_only: bool = False
    with_init: bool = False
    no_new_privileges: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    link_env: tuple[str, ...] = ()
    """What `--link` adds to the environment; inspect does not show it."""
    sysctls: dict[str, str] = {}
    group_add: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    hidden_paths: tuple[str, ...] = ()
    """Masked beside the fleet's own."""
    read_only_paths: tuple[str, ...] = ()
    """Made read-only beside the fleet's own."""
    asked_host_config: dict[str, JsonValue] = {}
    """What the client said in `HostConfig`; inspect echoes it."""
    asked_config: dict[str, JsonValue] = {}
    """Fields of the request that only inspect shows."""
    log: LogSettings = LogSettings()
    joins: dict[Literal["pid", "ipc"], ContainerId] = {}
    """Containers of the tenant on the same host whose namespaces it is in; they all have one range of ids."""
    shm: Literal["private", "shareable", "none"] = "private"
    """Its shared memory; only a shareable one can be joined."""
    powers: HostPowers | None = None
    """Only operators' containers have them."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command line."""
        return self.entrypoint + self.command

    def shares_with_host(self, kind: Namespace) -> bool:
        """Whether it is in this namespace of its host."""
        return self.powers is not None and kind in self.powers.namespaces

    @property
    def has_ids_of(self) -> ContainerId | None:
        """The container whose range of user ids it has; None: its own, or the host's."""
        if self.shares_with_host("user"):
            return None
        return next(iter(self.joins.values()), None)

    def resources(self) -> Resources:
        """What the container takes from its host."""
        return Resources(
            memory_bytes=self.limits.memory_bytes,
            cpu_millis=self.limits.cpu_millis,
            pids=self.limits.pids,
            containers=1,
        )


class Assignment(Message):
    """Which host, under which epoch, and why that one."""

    host: HostId
    epoch: int
    reason: str


class ContainerRecord(Message):
    """Desired state: value of bucket `containers`, key `<tenant>.<id>`.

    The scheduler creates it (one write: placement and record are the same fact); the api changes
    `goal`, `generation`, `attempt`, `name` by compare-and-set; the scheduler deletes it once the
    host has observed `REMOVED`.
    """

    id: ContainerId
    tenant: TenantId
    name: str
    """Without the leading slash of docker's lists."""
    spec: ContainerSpec
    image: ImagePin
    created_at_ns: int
    assignment: Assignment
    goal: Goal = Goal.CREATED
    generation: int = 1
    """Grows with every change of the record."""
    attempt: int = 0
    """Number of the last start that was asked for; 0 means never started."""
    paused_run: int | None = None
    """Number of the run that is to be paused (`Observation.run`); a later run is not."""
    stop_signal: str | None = None
    """Overrides the spec's for this stop."""
    stop_timeout_s: int | None = None
    remove_volumes: bool = False
    """With goal REMOVED: remove its anonymous volumes too."""


class Observation(Message):
    """Observed state: value of bucket `observed`, key `<host>.<id>`; written by that host's agent only."""

    id: ContainerId
    tenant: TenantId
    host: HostId
    generation: int
    """Of the record that this observation answers."""
    attempt: int
    state: State
    restarts: int = 0
    """How often the host ran the container again by its restart policy, over all attempts."""
    restart_count: int = 0
    """The same within this attempt."""
    change: int = 0
    """Grows with every change within one state of a run."""
    pid: int = 0
    exit_code: int | None = None
    previous_exit_code: int | None = None
    """Of the run before, for those who waited for its end and heard only of this one."""
    previous_run: int = 0
    """Number of that run; 0: there was none."""
    started_at_ns: int = 0
    finished_at_ns: int = 0
    was_oom_killed: bool = False
    error: str = ""
    error_code: str = ""
    """Code of the error that `error` tells (`labfleet_proto.errors`)."""
    is_paused: bool = False
    is_killed: bool = False
    """The owner has sent this run a signal that ends its restarts."""
    restart_at_ns: int = 0
    """When the policy begins the next run of this attempt; 0: it does not."""
    restart_delay_ms: int = 0
    """The last wait before a restart: the next one is longer."""
    health: Health | None = None
    endpoints: tuple[Endpoint, ...] = ()
    steps_s: dict[str, float] = {}
    """Durations of the last start's steps in seconds."""

    @property
    def run(self) -> int:
        """Number of this run of the container, whoever began it: the owner or the restart policy.

        Each run has a greater one than the run before. Without restarts by policy it is the attempt.
        """
        return self.attempt + self.restarts

    def order(self) -> tuple[int, State, int]:
        """Of two observations of one container the greater is right."""
        run = self.run if self.state is not State.REMOVED else 1 << 62
        return (run, self.state, self.change)


class NameRecord(Message):
    """Value of bucket `names`, key `<tenant>.<name>`; create-only."""

    id: ContainerId
    created_at_ns: int


class VolumeRecord(Message):
    """Value of bucket `volumes`, key `<tenant>.<name>`: a volume has a home host."""

    tenant: TenantId
    name: str
    home: HostId
    created_at_ns: int
    labels: dict[str, str] = {}
    is_anonymous: bool = False
    driver_opts: dict[str, str] = {}
    """See `labfleet_proto.volume_options`."""
