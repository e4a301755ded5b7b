"""What the steps of one container's life share: its state, its processes, and who waits for it."""

import asyncio
from pathlib import Path

from labfleet_proto.containers import ContainerRecord, Limits, Observation, State, awaits_restart
from labfleet_proto.errors import ConflictError, LabfleetError
from labfleet_runtime_agent.adapters.attach import Attachment
from labfleet_runtime_agent.adapters.execs import Exec
from labfleet_runtime_agent.adapters.ledger import LedgerEntry
from labfleet_runtime_agent.adapters.processes import ProcessHandle
from labfleet_runtime_agent.service.admission import Admission
from labfleet_runtime_agent.service.launch import Launch
from labfleet_runtime_agent.service.state import ContainerState
from labfleet_runtime_agent.service.tools import Tools

_HAS_PROCESSES = (State.RUNNING, State.STOPPING)


class Waiters:
    """Those who wait until the goal of a generation is reached."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[Observation]]] = []

    def add(self, generation: int) -> asyncio.Future[Observation]:
        """Wait for the goal of `generation` or of a newer one."""
        future: asyncio.Future[Observation] = asyncio.get_running_loop().create_future()
        self._waiting.append((generation, future))
        return future

    def answer(self, generation: int, seen: Observation | None) -> None:
        """The goal of `generation` is reached."""
        still = []
        for wanted, future in self._waiting:
            if wanted <= generation and seen is not None:
                if not future.done():
                    future.set_result(seen)
            else:
                still.append((wanted, future))
        self._waiting = still

    def fail(self, error: LabfleetError) -> None:
        """The goal that was tried cannot be reached."""
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting = []


class Live:
    """One container on this host; only its worker's task moves its state."""

    def __init__(self, tools: Tools, admission: Admission, entry: LedgerEntry) -> None:
        self.tools = tools
        self.admission = admission
        self.state = ContainerState(tools, admission, entry)
        self.execs: dict[str, Exec] = {}
        self.waiters = Waiters()
        self.init: ProcessHandle | None = None
        self.wake = asyncio.Event()
        self.exited = asyncio.Event()
        self.limits: Limits | None = None
        """In force on its processes; None if that is not known."""
        self.readers_still = 0
        """Who reads its files while it stands still."""
        self.files = asyncio.Lock()
        """Held while its files are mounted or taken away."""
        self._attachments: list[Attachment] = []

    @property
    def record(self) -> ContainerRecord:
        """Newest desired state that this host has."""
        return self.state.record

    @property
    def seen(self) -> Observation | None:
        """What is true now; None if nothing of it was ever seen here."""
        return self.state.seen

    @property
    def seen_attempt(self) -> int:
        """Attempt of the last observation; 0 before the first."""
        return self.seen.attempt if self.seen is not None else 0

    @property
    def is_running(self) -> bool:
        """Whether its processes run."""
        return self.state.is_in(*_HAS_PROCESSES)

    @property
    def awaits_restart(self) -> bool:
        """Whether it has ended and its restart policy is about to run it again."""
        return awaits_restart(self.record, self.seen)

    @property
    def bundle(self) -> Path:
        """Directory of the container's bundle, while it runs."""
        return self.tools.runtime.bundle_of(self.record.id)

    @property
    def log_file(self) -> Path:
        """What it printed, of all its attempts."""
        return self.tools.ledger.log_of(self.record.id)

    def first_process(self) -> ProcessHandle:
        """The container's first process. Raises ConflictError if it does not run."""
        if self.init is None or not self.is_running:
            raise ConflictError(f"container {self.record.id} is not running")
        return self.init

    @property
    def has_leftovers(self) -> bool:
        """Whether something of an attempt is still there."""
        tools, name = self.tools, self.record.id
        return tools.runtime.knows(name) or tools.files.snapshots.holds(name)

    async def undo(self, launch: Launch, run: int) -> None:
        """Leave nothing half-made; what cannot be undone now is undone by the next start or by fsck."""
        try:
            await launch.undo(run)
        except LabfleetError as exc:
            self.tools.log.warning("container.undo", container=self.record.id, error=exc.message)

    # -- attachments that wait for a start

    def attach(self, attachment: Attachment) -> None:
        """Attach now if it runs, else just before its next start."""
        if self.is_running:
            attachment.connect(self.bundle)
        else:
            self._attachments.append(attachment)

    def detach(self, attachment: Attachment) -> None:
        """Forget an attachment that still waits."""
        if attachment in self._attachments:
            self._attachments.remove(attachment)

    def connect_attachments(self) -> None:
        """The command is about to run: nothing that it prints may be missed."""
        for attachment in self._attachments:
            attachment.connect(self.bundle, is_begun=False)
        self._attachments = []

    def drop_attachments(self) -> None:
        """There will be no start."""
        for attachment in self._attachments:
            attachment.cancel()
        self._attachments = []
