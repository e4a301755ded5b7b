"""One start of a container: everything prepared side by side, then conmon and crun."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_proto.containers import ContainerRecord, Limits
from labfleet_proto.errors import UnavailableError
from labfleet_proto.ids import OPERATORS
from labfleet_proto.jobs import JobKind
from labfleet_proto.networks import (
    ALLOCATE_INTERFACE,
    CHANGE_INTERFACES,
    RELEASE_INTERFACE,
    AllocateInterface,
    Endpoint,
    InterfaceReady,
    InterfaceWish,
    PublishedPort,
    ReleaseInterface,
    UserIds,
)
from labfleet_proto.volume_options import volume_kind
from labfleet_runtime_agent.adapters import (
    archive,
    host_facts,
    host_power,
    image_users,
    joined_namespaces,
    processes,
    user_namespaces,
)
from labfleet_runtime_agent.adapters.archive import RootView
from labfleet_runtime_agent.adapters.ledger import RunningProcess
from labfleet_runtime_agent.adapters.volume_store import is_empty_directory
from labfleet_runtime_agent.core import name_files, power
from labfleet_runtime_agent.core import spec as oci
from labfleet_runtime_agent.core.admission import check_cpus
from labfleet_runtime_agent.core.spec import HostPart, Identity, VolumeSource
from labfleet_runtime_agent.metrics import START_PHASE
from labfleet_runtime_agent.service import bundle_files
from labfleet_runtime_agent.service.readiness import owner
from labfleet_runtime_agent.service.tools import Tools

_NETWORK_LIMIT_S = 20.0
_RELEASE_LIMIT_S = 3.0
_MOST_NAMES = 1 << 20
"""Characters of a file of names that are kept: the container may write it."""
_INIT = Path("/usr/bin/tini-static")


@dataclass
class Launched:
    """A container that was created and waits for `crun start`."""

    running: RunningProcess
    interface: InterfaceReady
    limits: Limits
    steps_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shared:
    """What a container has together with others."""

    namespaces: dict[str, str]
    """Paths by their kinds."""
    memory: str
    """Directory; empty: none."""


class Launch:
    """Prepares and undoes one attempt. Every step may be repeated."""

    def __init__(self, tools: Tools, record: ContainerRecord) -> None:
        self._tools = tools
        self._record = record
        self._steps: dict[str, float] = {}

    @property
    def bundle(self) -> Path:
        """Directory of the container's bundle."""
        return self._tools.runtime.bundle_of(self._record.id)

    async def create(self, base: int, run: int) -> Launched:
        """Make everything and let crun create the container for its run of that number.

        `base` is the first of its user ids.

        Raises LabfleetError; `undo` takes back what was made.
        """
        record = self._record
        self._tools.group_lock.warm()
        try:
            async with TaskGroup() as tasks:
                files = tasks.create_task(self._timed("files", self._prepare_files(base)))
                network = tasks.create_task(self._timed("network", self._allocate(run, base)))
                tasks.create_task(self._timed("cgroup", self._make_cgroup()))
        except ExceptionGroup as group:  # not except*: that would wrap what is raised here
            raise first_of(group) from None
        volumes, who = files.result()
        interface: InterfaceReady = network.result()
        began = time.perf_counter()
        spec = record.spec
        has_others_ids = spec.has_ids_of is not None
        with (
            user_namespaces.joined(interface) as userns,
            joined_namespaces.held(
                self._tools.runtime, self._tools.cgroups, spec.joins, with_ids=has_others_ids
            ) as others,
        ):
            namespaces = ({"user": userns} if userns else {}) | others
            shared = Shared(namespaces, await self._shared_memory(base))
            to_learn = await asyncio.to_thread(
                self._write_bundle, base, interface, volumes, who, shared
            )
            self._note("bundle", time.perf_counter() - began)
            began = time.perf_counter()
            self._tools.group_lock.warm()
            log = self._tools.ledger.log_of(record.id)
            running = await self._tools.runtime.create(record.id, log, record.spec)
        self._note("create", time.perf_counter() - began)
        if not record.spec.shares_with_host("user"):
            user_namespaces.check_ids(running.pid, base)
        self._tools.runtime.learn_filter(record.id, to_learn)
        began = time.perf_counter()
        await asyncio.to_thread(self._tools.cgroups.enter, record.id, running.pid)
        self._note("enter", time.perf_counter() - began)
        if record.spec.shares_network_of is not None:  # the endpoints are the other's
            interface = interface.model_copy(update={"endpoints": ()})
        return Launched(running, interface, record.spec.limits, self._steps)

    def _note(self, step: str, took_s: float) -> None:
        self._steps[step] = round(took_s, 6)
        START_PHASE.labels(step).observe(took_s)

    async def _timed(self, step: str, work: Any) -> Any:
        began = time.perf_counter()
        try:
            return await work
        finally:
            self._note(step, time.perf_counter() - began)

    async def _make_cgroup(self) -> None:
        check_cpus(self._record.spec.limits.cpuset_cpus or "", host_facts.cpus())
        await asyncio.to_thread(self._tools.cgroups.make, self._record.id, self._record.spec.limits)
        if self._record.spec.powers is not None:
            await asyncio.to_thread(self._grant)

    def _grant(self) -> None:
        """Let the group have the devices of an operator's container."""
        name, spec, cgroups = self._record.id, self._record.spec, self._tools.cgroups
        rules = power.device_rules(spec, host_power.host_power(spec))
        if rules:
            cgroups.allow_devices(name, rules)
        cgroups.throttle(name, host_power.throttles(spec))
        powers = spec.powers
        if powers is not None and (powers.rt_period_us or powers.rt_runtime_us):
            cgroups.real_time(name, powers.rt_period_us, powers.rt_runtime_us)

    async def _prepare_files(self, base: int) -> tuple[list[VolumeSource], Identity]:
        files = self._tools.files
        record = self._record
        layers = await files.layers.ensure(record.image)
        root = await files.snapshots.prepare(record.id, layers, base)
        who = await asyncio.to_thread(
            image_users.look_up, root, record.spec.user, record.spec.group_add
        )
        return await self.attach_volumes(base, root), who

    async def attach_volumes(self, base: int, root: Path) -> list[VolumeSource]:
        """Mount the volumes' files with the container's ids; an empty one is filled as docker does."""
        record = self._record
        count = len(record.spec.mounts)
        found = [await self._attach_volume(number, base, root) for number in range(count)]
        for number, bind in enumerate(record.spec.host_binds):
            source = await self._tools.files.snapshots.attach_bind(record.id, number, bind, base)
            found.append(VolumeSource(str(source), bind.target, bind.read_only, bind.propagation))
        return found

    async def _attach_volume(self, number: int, base: int, root: Path) -> VolumeSource:
        record, files = self._record, self._tools.files
        mount = record.spec.mounts[number]
        kind = volume_kind(mount.driver_opts, is_operator=record.tenant == OPERATORS)
        data, is_empty = await files.volumes.make(record.tenant, mount.volume, kind)
        source = await files.snapshots.attach_volume(record.id, number, data, base, mount.subpath)
        if mount.subpath:
            is_empty = await asyncio.to_thread(is_empty_directory, source)
        if is_empty and mount.copy_up:
            await self._copy_up(root, mount.target, source, base)
        return VolumeSource(str(source), mount.target, mount.read_only)

    async def _copy_up(self, root: Path, target: str, source: Path, base: int) -> None:
        """Fill an empty volume with the image's files at its target, as docker does."""
        inside = root / target.lstrip("/")
        if inside.is_symlink() or not inside.is_dir() or not any(inside.iterdir()):
            return
        userns = self._tools.files.snapshots.userns(base)
        chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=8)
        with (
            open_view(self._record, root, userns) as there,
            open_view(self._record, source, userns) as here,
        ):

            async def produce() -> None:
                await archive.read(there, f"{target.rstrip('/')}/.", chunks.put)
                await chunks.put(b"")

            async with TaskGroup() as tasks:
                tasks.create_task(produce())
                await archive.write(here, archive.Target("/"), chunks.get)

    async def _shared_memory(self, base: int) -> str:
        """Where the shared memory is that the container has with others; empty: it has its own."""
        record, snapshots = self._record, self._tools.files.snapshots
        if "ipc" in record.spec.joins:
            return str(await snapshots.join_memory(record.id, record.spec.joins["ipc"]))
        if record.spec.shm == "shareable":
            size = record.spec.limits.shm_bytes
            return str(await snapshots.share_memory(record.id, base, size))
        return ""

    async def _allocate(self, run: int, base: int) -> InterfaceReady:
        spec = self._record.spec
        if spec.shares_with_host("network"):
            return InterfaceReady(netns_path="", endpoints=(), dns_servers=())
        # Who is in the user namespace of another has no power over its network.
        is_own = not (spec.shares_with_host("user") or spec.has_ids_of)
        ids = owner(base) if is_own else None
        return await self._ask_network(ALLOCATE_INTERFACE, run, ids)

    async def rewire(self, run: int, old: Sequence[Endpoint]) -> InterfaceReady:
        """Make the interfaces of the current run equal to the record's networks; again is nothing.

        Raises what the network service raises.
        """
        interface = await self._ask_network(CHANGE_INTERFACES, run)
        await asyncio.to_thread(self._rename, interface, old)
        return interface

    def _rename(self, interface: InterfaceReady, old: Sequence[Endpoint]) -> None:
        """Let the files of names follow, in place: they are bound into the container."""
        spec = self._record.spec
        for name in ("hosts", "resolv.conf"):
            path = self.bundle / name
            with path.open(errors="replace") as file:
                text = file.read(_MOST_NAMES)
            if name == "hosts":
                text = name_files.changed_hosts(text, spec, old, interface.endpoints)
            else:
                text = name_files.changed_resolv_conf(text, spec, interface)
            path.write_text(text)

    async def _ask_network(
        self,
        kind: JobKind[AllocateInterface, InterfaceReady],
        run: int,
        ids: UserIds | None = None,
    ) -> InterfaceReady:
        record = self._record
        spec = record.spec
        names = tuple(dict.fromkeys((record.name, record.id[:12], spec.hostname)))
        wishes = tuple(
            InterfaceWish(
                network=network.network_id,
                network_name=network.network_name,
                names=tuple(dict.fromkeys((*names, *network.aliases))),
                aliases=network.aliases,
                address=network.address,
                address6=network.address6,
                mac=network.mac,
                links=network.links,
                link_local=network.link_local,
                gateway_priority=network.gateway_priority,
            )
            for network in spec.networks
        )
        ports = tuple(
            PublishedPort(
                host_address=port.host_address,
                host_port=port.host_port,
                protocol=port.protocol,
                container_port=port.container_port,
            )
            for port in spec.ports
            if port.host_port is not None
        )
        return await self._tools.bus.call(
            kind,
            AllocateInterface(
                container=record.id,
                attempt=run,
                networks=wishes,
                ports=ports,
                shares=spec.shares_network_of,
                owner=ids,
                sysctls={
                    name: spec.sysctls[name] for name in spec.sysctls if oci.is_of_network(name)
                },
            ),
            tenant=record.tenant,
            subject=record.id,
            host=self._tools.host,
            timeout_s=_NETWORK_LIMIT_S,
        )

    def _write_bundle(
        self,
        base: int,
        interface: InterfaceReady,
        volumes: list[VolumeSource],
        who: Identity,
        shared: Shared,
    ) -> str:
        """Write the bundle; return the filter of system calls that is to be learnt."""
        record = self._record
        part = HostPart(
            rootfs=str(self._tools.files.snapshots.root_of(record.id)),
            uid_base=base,
            netns_path=interface.netns_path,
            sysfs_path=interface.sysfs_path,
            joined=shared.namespaces,
            shm_path=shared.memory,
            files=bundle_files.write(self.bundle, record, interface, base),
            volumes=tuple(volumes),
            hard_nofile=host_facts.hard_nofile(),
            hard_limits=host_facts.hard_limits(),
            init_path=str(_INIT) if _INIT.exists() else "",
            power=host_power.host_power(record.spec),
        )
        config = oci.build(record.spec, part, who)
        return self._tools.runtime.write_config(record.id, config)

    async def undo(self, run: int) -> None:
        """Take away what runs or was made for a run; again is nothing.

        The writable layer and the log stay.
        """
        record, tools = self._record, self._tools
        await tools.runtime.delete(record.id)
        if (
            record.spec.shares_with_host("pid") or "pid" in record.spec.joins
        ):  # its end is not that of its other processes
            await processes.kill_group(lambda: tools.cgroups.pids(record.id))
        try:
            await tools.bus.call(
                RELEASE_INTERFACE,
                ReleaseInterface(container=record.id, attempt=run),
                tenant=record.tenant,
                subject=record.id,
                host=tools.host,
                timeout_s=_RELEASE_LIMIT_S,
            )
        except UnavailableError as exc:  # the network service's own loop releases it
            tools.log.warning("interface.left", container=record.id, error=exc.message)
        await tools.files.snapshots.unmount(record.id)
        await asyncio.to_thread(tools.cgroups.remove, record.id)


@contextlib.contextmanager
def open_view(record: ContainerRecord, root: Path, userns_fd: int) -> Iterator[RootView]:
    """Open a directory as the root of a container's files, with its user namespace."""
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    view = RootView(record.id, root_fd, os.dup(userns_fd))
    try:
        yield view
    finally:
        view.close()
