"""The host's capacity as its workers use it, and the loop that publishes it."""

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path

from labfleet_chassis.logs import Log
from labfleet_chassis.supervise import alone
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.containers import ContainerRecord, Observation, State
from labfleet_proto.errors import DiskFullError, NoRoomError
from labfleet_proto.ids import ContainerId
from labfleet_proto.placement import Hold, HoldAnswer, takes_room
from labfleet_proto.resources import Resources, lacking
from labfleet_runtime_agent.core.admission import Holds
from labfleet_runtime_agent.metrics import CONTAINERS, FREE

_DISK_RESERVE_BYTES = 256 << 20
"""With less nothing new comes here, so that what runs can go on and be looked at."""


class Admission:
    """Who uses how much of this host. Not for several threads."""

    def __init__(self, capacity: Resources, tasks: TaskGroup, state_dir: Path, log: Log) -> None:
        self.capacity = capacity
        self.moved = asyncio.Event()
        """Set whenever the free vector may have changed."""
        self._holds = Holds()
        self._tasks = tasks
        self._state_dir = state_dir
        self._log = log
        self._known: dict[ContainerId, tuple[ContainerRecord, Observation | None]] = {}
        self._guests: dict[ContainerId, Resources] = {}
        """What is no container and takes room until it leaves: builds."""
        self._used = Resources()

    def changed(self, record: ContainerRecord, seen: Observation | None) -> None:
        """Note a container's newest record and observation."""
        old = self._known.get(record.id)
        if old is None or old[0].generation != record.generation:
            self._holds.arrived(record.id)
        self._subtract(record.id)
        if seen is not None and seen.state is State.REMOVED:
            self._known.pop(record.id, None)
        else:
            self._known[record.id] = (record, seen)
            if takes_room(record, seen):
                self._used += record.spec.resources()
        self.moved.set()

    def forget(self, container: ContainerId) -> None:
        """The container is gone."""
        self._subtract(container)
        self._known.pop(container, None)
        self.moved.set()

    def _subtract(self, container: ContainerId) -> None:
        old = self._known.get(container)
        if old is not None and takes_room(*old):
            self._used -= old[0].spec.resources()

    def free(self) -> Resources:
        """Capacity that is neither used nor held."""
        return self.capacity - self._used - self._holds.total()

    def lapse(self, now_s: float) -> None:
        """Drop the holds whose time is over."""
        self._holds.lapse(now_s)

    def hold(self, request: Hold, now_s: float) -> HoldAnswer:
        """Grant or refuse a hold; a container that is here already is granted."""
        if request.container in self._known:
            return HoldAnswer(is_granted=True, free=self.free())
        if self._lacks_disk():
            return HoldAnswer(is_granted=False, lacking=("disk space",), free=self.free())
        answer = self._holds.ask(
            request.container, request.resources, self.capacity - self._used, now_s
        )
        self.moved.set()
        return answer

    def hold_more(self, record: ContainerRecord, wanted: Resources, now_s: float) -> None:
        """Hold what a container would take more with other limits. Raises NoRoomError.

        One that takes no room now needs no hold: its next start is admitted anew.
        """
        old = self._known.get(record.id)
        if old is None or not takes_room(*old):
            return
        more = (wanted - record.spec.resources()).positive()
        answer = self._holds.ask(record.id, more, self.capacity - self._used, now_s)
        if not answer.is_granted:
            raise NoRoomError(
                f"this host has no room left to enlarge {record.name}: "
                f"it lacks {', '.join(answer.lacking)}"
            )
        self.moved.set()

    def enter(self, guest: ContainerId, wanted: Resources) -> None:
        """Take room for a build until it leaves. Raises NoRoomError, DiskFullError."""
        if self._lacks_disk():
            raise DiskFullError("this host has no room left for a build: its disk is full")
        missing = lacking(wanted, self.free())
        if missing:
            raise NoRoomError(
                f"this host has no room left for a build: it lacks {', '.join(missing)}"
            )
        self._guests[guest] = wanted
        self._used += wanted
        self.moved.set()

    def leave(self, guest: ContainerId) -> None:
        """Give back what a build has taken; one that has not is nothing."""
        self._used -= self._guests.pop(guest, Resources())
        self.moved.set()

    def admit(self, record: ContainerRecord) -> None:
        """Let a container start. Raises NoRoomError naming what is lacking, DiskFullError."""
        if self._lacks_disk():
            raise DiskFullError(f"this host has no room left for {record.name}: its disk is full")
        old = self._known.get(record.id)
        mine = record.spec.resources() if old is not None and takes_room(*old) else Resources()
        missing = lacking(record.spec.resources(), self.free() + mine)
        if missing:
            raise NoRoomError(
                f"this host has no room left for {record.name}: it lacks {', '.join(missing)}"
            )

    def _lacks_disk(self) -> bool:
        return shutil.disk_usage(self._state_dir).free < _DISK_RESERVE_BYTES

    def spawn(self, name: str, work: Coroutine[object, object, None]) -> None:
        """Run something beside all else; its failure ends nothing but itself."""
        self._tasks.create_task(alone(name, work, self._log))

    def count(self) -> None:
        """Set the gauges."""
        states: dict[str, int] = {}
        for record, seen in self._known.values():
            name = seen.state.name.lower() if seen else record.goal.value
            states[name] = states.get(name, 0) + 1
        CONTAINERS.clear()
        for name, number in states.items():
            CONTAINERS.labels(name).set(number)
        for name, value in self.free().model_dump().items():
            FREE.labels(name).set(value)
