"""The agent: one worker per container of this host, and the jobs that reach them."""

import asyncio
import os
from dataclasses import replace

from labfleet_chassis.mirror import Mirror
from labfleet_chassis.store import Entry
from labfleet_chassis.supervise import supervise
from labfleet_proto.buckets import container_key
from labfleet_proto.builds import is_build
from labfleet_proto.containers import ContainerRecord, Goal, Observation, State
from labfleet_proto.errors import (
    ConflictError,
    IllegalTransitionError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    StaleError,
    UnavailableError,
)
from labfleet_proto.ids import ContainerId, TenantId
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing
from labfleet_proto.placement import Hold, HoldAnswer
from labfleet_proto.runtime import (
    AdmitLimits,
    ContainerRef,
    ContainerStats,
    PathStat,
    Reconcile,
    Signal,
    StatPath,
    Top,
    TopTable,
    VolumeRef,
    VolumeRefs,
    VolumeSizes,
)
from labfleet_runtime_agent.adapters import archive, host_facts, process_table
from labfleet_runtime_agent.adapters.ledger import LedgerEntry
from labfleet_runtime_agent.core.admission import check_cpus
from labfleet_runtime_agent.service.admission import Admission
from labfleet_runtime_agent.service.state import fresh
from labfleet_runtime_agent.service.tools import Tools
from labfleet_runtime_agent.service.worker import Worker

_ASK_AGAIN_S = 1.0


class Agent:
    """All containers of this host."""

    def __init__(
        self, tools: Tools, admission: Admission, records: Mirror[ContainerRecord]
    ) -> None:
        self.workers: dict[ContainerId, Worker] = {}
        self.tools = tools
        self.admission = admission
        self._records = records
        self._forgetting: set[ContainerId] = set()

    # -- life

    def recover(self) -> None:
        """Take up every container of the ledger, then everything that was recorded meanwhile."""
        for entry in self.tools.ledger.load():
            if entry.boot_id != self.tools.boot_id:
                entry = entry.model_copy(update={"running": None})  # noqa: PLW2901
            if entry.uid_slot is not None:
                self.tools.files.slots.restore(entry.record.id, entry.uid_slot)
            self._begin(entry)
        for record in self._records.values():
            self.offer(record)
        for worker in list(self.workers.values()):
            self._forget_if_gone(worker)
        self._records.listen(self._on_change)

    def _on_change(self, _key: str, entry: Entry[ContainerRecord] | None) -> None:
        if entry is not None:
            self.offer(entry.value)
        else:
            for worker in list(self.workers.values()):
                self._forget_if_gone(worker)

    def _forget_if_gone(self, worker: Worker) -> None:
        """Once the record of a removed container is gone, so is its entry in the ledger."""
        record = worker.record
        is_recorded = container_key(record.tenant, record.id) in self._records.entries
        if not is_recorded and worker.is_removed and record.id not in self._forgetting:
            self._forgetting.add(record.id)
            forget = supervise("forget", lambda: self._forget(worker), self.tools.log)
            self.admission.spawn("forget", forget)

    async def _forget(self, worker: Worker) -> None:
        """Forget a removed container, unless the mirror has merely not seen its record yet.

        Forgotten too early, its record would look like that of a new container.
        """
        record = worker.record
        if not await self._is_stored(record):
            self.workers.pop(record.id, None)
            self.admission.forget(record.id)
            await asyncio.to_thread(self.tools.ledger.forget, record.id)
        self._forgetting.discard(record.id)

    async def _is_stored(self, record: ContainerRecord) -> bool:
        """Whether the fleet's memory has the record; asks until it is told."""
        while True:
            try:
                key = container_key(record.tenant, record.id)
                return await self._records.bucket.get(key) is not None
            except UnavailableError:
                await asyncio.sleep(_ASK_AGAIN_S)

    def offer(self, record: ContainerRecord) -> Worker | None:
        """Give a record to its worker, making one for a new container; None if it is another host's."""
        if record.assignment.host != self.tools.host:
            return None
        worker = self.workers.get(record.id)
        if worker is not None:
            if worker.offer(record):
                self.admission.changed(record, worker.seen)
            return worker
        return self._begin(fresh(record))

    def _begin(self, entry: LedgerEntry) -> Worker:
        worker = Worker(self.tools, self.admission, entry)
        self.workers[entry.record.id] = worker
        self.admission.changed(entry.record, entry.seen)
        self.admission.spawn("worker", self._live(worker))
        return worker

    async def _live(self, worker: Worker) -> None:
        """Run a worker to its container's end; a failure of one never reaches the others."""

        async def attempt() -> None:
            try:
                await worker.run()
            except Exception as exc:
                worker.fail(InternalError(f"container {worker.record.id}: {exc}"))
                raise

        while True:
            try:
                await supervise("worker", attempt, self.tools.log)
                break
            except IllegalTransitionError as exc:  # a bug: look anew at what is true
                self.tools.log.exception("worker.bug", container=worker.record.id, error=str(exc))
                await asyncio.sleep(_ASK_AGAIN_S)
        self._forget_if_gone(worker)

    async def find(
        self, tenant: TenantId, container: ContainerId, *, and_removed: bool = False
    ) -> Worker:
        """Return a container's worker; a record that the mirror has not seen yet is read from the store.

        Raises NotFoundError, also for another tenant's container, and for a removed one unless
        `and_removed`; UnavailableError.
        """
        worker = self.workers.get(container)
        if worker is None:
            entry = await self._records.bucket.get(container_key(tenant, container))
            worker = self.offer(entry.value) if entry is not None else None
        is_gone = worker is not None and worker.is_removed and not and_removed
        if worker is None or is_gone or worker.record.tenant != tenant:
            raise NotFoundError(f"No such container: {container}")
        return worker

    # -- jobs; each is safe to run twice

    async def hold(self, _job: Job, args: Hold) -> HoldAnswer:
        """Set capacity aside. Repeating renews the same hold."""
        return self.admission.hold(args, self.tools.clock.monotonic_s())

    async def reconcile(self, _job: Job, args: Reconcile) -> Observation:
        """Reach the record's goal. Repeating waits for the same end; an older record is stale."""
        record = args.record
        if record.assignment.host != self.tools.host:
            raise InvalidRequestError(
                f"container {record.id} belongs to {record.assignment.host}, not {self.tools.host}"
            )
        # Of a container that is not known here only the store's word counts: a job may be late, and
        # the container be gone already.
        worker = await self.find(record.tenant, record.id, and_removed=True)
        self.offer(record)
        if worker.record.generation > record.generation:
            raise StaleError(f"container {record.id}: generation {record.generation} is old")
        return await worker.settled(record.generation)

    async def admit_limits(self, job: Job, args: AdmitLimits) -> Nothing:
        """Say whether a container may have other limits. Repeating renews the same hold."""
        worker = await self.find(job.tenant, args.container)
        record, limits = worker.record, args.limits
        wanted = record.spec.model_copy(update={"limits": limits}).resources()
        check_cpus(limits.cpuset_cpus or "", host_facts.cpus())
        if worker.is_running:
            in_use = await asyncio.to_thread(self.tools.cgroups.memory_in_use, record.id)
            if limits.memory_bytes < in_use:
                why = (
                    f"unable to set memory limit to {limits.memory_bytes} (current usage: {in_use})"
                )
                raise InternalError(f"Cannot update container {record.id}: {why}")
        self.admission.hold_more(record, wanted, self.tools.clock.monotonic_s())
        return Nothing()

    async def kill(self, job: Job, args: Signal) -> Nothing:
        """Send a signal; a repeated job sends it again, as docker would."""
        worker = await self.find(job.tenant, args.container)
        await worker.signal(args.signal)
        return Nothing()

    async def top(self, job: Job, args: Top) -> TopTable:
        """List the processes of a container, as `ps` on the host shows them."""
        worker = await self.find(job.tenant, args.container)
        worker.init()
        pids = await asyncio.to_thread(self.tools.cgroups.pids, args.container)
        table = await process_table.table(args.ps_args, pids)
        await self.tools.emit(worker.record, "top")
        return table

    async def stats(self, job: Job, args: ContainerRef) -> ContainerStats:
        """Sample a container; one that does not run uses nothing."""
        worker = await self.find(job.tenant, args.container)
        now = self.tools.clock.now_ns()
        if not worker.is_running or worker.seen is None:
            return ContainerStats(read_at_ns=0)
        stats = await asyncio.to_thread(self.tools.cgroups.sample, args.container)
        return host_facts.completed(stats, worker.seen.pid, now)

    async def stat_path(self, job: Job, args: StatPath) -> PathStat:
        """Describe a path of a container."""
        worker = await self.find(job.tenant, args.container)
        async with worker.files() as view:
            return await archive.stat_path(replace(view, shown_as=args.shown_as), args.path)

    async def measure_volumes(self, _job: Job, args: VolumeRefs) -> VolumeSizes:
        """How much the files of some volumes take."""
        volumes = self.tools.files.volumes

        def measure() -> dict[str, int]:
            return {name: volumes.size(args.tenant, name) for name in args.names}

        return VolumeSizes(sizes_bytes=await asyncio.to_thread(measure))

    async def remove_volume(self, _job: Job, args: VolumeRef) -> Nothing:
        """Delete a volume's files; absent is success."""
        for worker in self.workers.values():
            record = worker.record
            if record.tenant == args.tenant and record.goal is not Goal.REMOVED:
                for mount in record.spec.mounts:
                    if mount.volume == args.name:
                        raise ConflictError(f"remove {args.name}: volume is in use - [{record.id}]")
        await self.tools.files.volumes.remove(args.tenant, args.name)
        return Nothing()

    def layers_in_use(self) -> set[str]:
        """Names of the layers of all containers that are here, running, stopped or about to start."""
        return {
            layer.diff_id.removeprefix("sha256:")
            for worker in self.workers.values()
            if not worker.is_removed
            for layer in worker.record.image.layers
        }

    # -- findings

    def findings(self) -> list[str]:
        """What fsck should know: things without a record, and records without their thing."""
        here = {worker.record.id for worker in self.workers.values()}
        tools = self.tools
        found = [
            f"cgroup of unknown container {name}"
            for name in sorted(tools.cgroups.names() - here)
            if not is_build(ContainerId(name))
        ]
        found += [
            f"mounts of unknown container {name}"
            for name in sorted(tools.files.snapshots.holders() - here)
        ]
        found += [
            f"files of unknown container {path.name}"
            for path in tools.ledger.strangers(here)
            if any(path.iterdir())
        ]
        found += [
            f"user-id range of unknown container {name}"
            for name in sorted(tools.files.slots.holders() - here)
            if not name.startswith("builder-")
        ]
        found += [
            f"crun state of unknown container {name}"
            for name in sorted(tools.runtime.known() - here)
        ]
        for worker in self.workers.values():
            found += self._findings_of(worker)
        return found

    def _findings_of(self, worker: Worker) -> list[str]:
        seen, container = worker.seen, worker.record.id
        if seen is None:
            return []
        if seen.state is State.RUNNING and not os.path.exists(f"/proc/{seen.pid}"):  # noqa: PTH110
            return [f"container {container} is observed running but process {seen.pid} is gone"]
        if seen.state >= State.EXITED and self.tools.cgroups.pids(container):
            return [f"container {container} has ended but processes are left in its cgroup"]
        return []
