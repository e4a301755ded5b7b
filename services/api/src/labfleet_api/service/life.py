"""The life of a container: create, start, stop, kill, remove, wait."""

import asyncio
import contextlib
import random
import secrets
from dataclasses import dataclass

from labfleet_api.core import attachments, goals, mounts, names
from labfleet_api.core import create as translate
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.image_defaults import image_defaults
from labfleet_api.core.platforms import check_platform
from labfleet_api.core.views import state_of
from labfleet_api.service.fleet import Fleet, Watch
from labfleet_api.service.networks import Networks
from labfleet_chassis.store import ExistsError
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.buckets import name_key, observed_key
from labfleet_proto.containers import (
    ContainerRecord,
    ContainerSpec,
    Goal,
    NameRecord,
    Observation,
    State,
    VolumeMount,
)
from labfleet_proto.errors import (
    ConflictError,
    InvalidRequestError,
    LabfleetError,
    NotFoundError,
    NotModifiedError,
    StaleError,
    UnavailableError,
)
from labfleet_proto.ids import ContainerId, HostId
from labfleet_proto.images import RESOLVE_IMAGE, ImageQuery
from labfleet_proto.placement import PLACE, PlaceContainer
from labfleet_proto.runtime import RECONCILE, SIGNAL, Reconcile, Signal
from labfleet_proto.signals import number_of

_START_LIMIT_S = 90.0
_GONE_LIMIT_S = 20.0
_NAME_TRIES = 20
_LONGEST_GRACE_S = 365 * 86_400
_LONGEST_WAIT_S = 86_400.0


@dataclass(frozen=True)
class StopWish:
    """How to stop; None means as the container says."""

    signal: str | None = None
    timeout_s: int | None = None


class Life:
    """Changes goals and asks the hosts to reach them now."""

    def __init__(self, fleet: Fleet, networks: Networks) -> None:
        self._fleet = fleet
        self._networks = networks
        self._choice = random.SystemRandom()

    # -- create

    async def create(self, body: CreateBody, name: str, platform: str = "") -> ContainerRecord:
        """Place and record a new container.

        Raises NotFoundError (image, network), ConflictError (name), InvalidRequestError,
        ForbiddenError, NoRoomError; then nothing is left behind.
        """
        fleet = self._fleet
        wanted_name = names.checked_container_name(name) if name else ""
        if not body.Image:
            raise InvalidRequestError("no image specified")
        container = ContainerId(secrets.token_hex(32))
        image = await fleet.bus.call(
            RESOLVE_IMAGE,
            ImageQuery(reference=body.Image),
            tenant=fleet.tenant,
            subject=body.Image,
        )
        check_platform(platform, body.Image, image.config)
        joined = await self._networks.attachments(attachments.wanted_networks(body))
        spec = translate.specification(
            container,
            body,
            image_defaults(image.config),
            joined,
            new_volume=lambda: secrets.token_hex(32),
            inherited=self._inherited(body),
        )
        constraints = translate.constraints(spec.labels)
        shared = attachments.shared_with(body)
        if shared:
            spec, home = self._sharing(spec, shared)
            constraints = (*constraints, f"host=={home}")
        taken = await self._claim(container, wanted_name)
        try:
            placed = await fleet.bus.call(
                PLACE,
                PlaceContainer(
                    container=container,
                    tenant=fleet.tenant,
                    name=taken,
                    spec=spec,
                    image=image.pin.model_copy(update={"reference": body.Image}),
                    constraints=constraints,
                    created_at_ns=fleet.clock.now_ns(),
                ),
                tenant=fleet.tenant,
                subject=container,
            )
        except UnavailableError:
            raise  # it may have been placed: an unused name is dropped by the scheduler
        except LabfleetError:
            await fleet.memory.names.delete(name_key(fleet.tenant, taken))
            raise
        await fleet.memory.containers.wait_for(placed.revision)
        await self._tell(placed.record, "create")
        return placed.record

    def _sharing(self, spec: ContainerSpec, text: str) -> tuple[ContainerSpec, HostId]:
        """Let a container be in another's network namespace; it goes to that one's host.

        Raises InvalidRequestError: a 404 would make clients pull the image.
        """
        try:
            other = self._fleet.find(text)
        except NotFoundError as exc:
            raise InvalidRequestError(exc.message) from exc
        changed = {
            "network_mode": f"container:{other.id}",
            "shares_network_of": other.spec.shares_network_of or other.id,
            "hostname": other.spec.hostname,
            "domainname": other.spec.domainname,
        }
        return spec.model_copy(update=changed), other.assignment.host

    def _inherited(self, body: CreateBody) -> tuple[VolumeMount, ...]:
        """Volumes of the containers that the request names. Raises InvalidRequestError."""
        sources = []
        for text in (body.HostConfig.VolumesFrom if body.HostConfig else None) or ():
            try:
                sources.append((text, self._fleet.find(text.partition(":")[0]).spec))
            except NotFoundError as exc:  # a 404 would make clients pull the image
                raise InvalidRequestError(exc.message) from exc
        return mounts.inherited(sources)

    async def _claim(self, container: ContainerId, name: str) -> str:
        fleet = self._fleet
        record = NameRecord(id=container, created_at_ns=fleet.clock.now_ns())
        for _ in range(_NAME_TRIES):
            wish = name or names.random_name(self._choice.choice)
            try:
                await fleet.memory.names.create(name_key(fleet.tenant, wish), record)
            except ExistsError as exc:
                if name:
                    raise await self._name_conflict(name) from exc
                continue
            return wish
        raise ConflictError("no free name was found; give one with --name")

    async def _name_conflict(self, name: str) -> ConflictError:
        holder = await self._fleet.memory.names.get(name_key(self._fleet.tenant, name))
        who = holder.value.id if holder else "another one"
        return ConflictError(
            f'Conflict. The container name "/{name}" is already in use by container "{who}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )

    async def _tell(self, record: ContainerRecord, action: str) -> None:
        attributes = {
            **record.spec.labels,
            "image": record.image.reference,
            "name": record.name,
            "labfleet.host": record.assignment.host,
        }
        await self._fleet.emit("container", action, record.id, attributes)

    # -- start and stop

    async def start(self, record: ContainerRecord) -> None:
        """Start; returns when the command runs. Raises NotModifiedError, or why it could not.

        A start that is still on its way is joined, not done a second time; a stop that is still on
        its way comes first.
        """

        def alter(old: ContainerRecord) -> ContainerRecord:
            seen = self._fleet.seen(old)
            state = state_of(old, seen)
            if state == "removing":
                raise ConflictError(f"container {old.name} is marked for removal")
            if goals.is_pending_start(old, seen):
                return old
            if state == "running" and old.goal is Goal.RUNNING:
                raise NotModifiedError(f"container {old.name} is already running")
            return old.model_copy(update={"goal": Goal.RUNNING, "attempt": old.attempt + 1})

        await self._reach(await self._fleet.change(record, alter), _START_LIMIT_S)

    async def stop(self, record: ContainerRecord, wish: StopWish) -> None:
        """Stop; returns when it has ended. Raises NotModifiedError.

        A start that is still on its way is called off.
        """
        grace = _grace_s(record, wish)

        def alter(old: ContainerRecord) -> ContainerRecord:
            seen = self._fleet.seen(old)
            if state_of(old, seen) != "running" and not goals.is_pending_start(old, seen):
                raise NotModifiedError(f"container {old.name} is not running")
            return old.model_copy(
                update={
                    "goal": Goal.STOPPED,
                    "stop_signal": wish.signal,
                    "stop_timeout_s": grace,
                }
            )

        await self._reach(await self._fleet.change(record, alter), grace + _START_LIMIT_S)

    async def restart(self, record: ContainerRecord, wish: StopWish) -> None:
        """Stop if it runs, then start: one wish, so that --rm does not remove it in between."""
        grace = _grace_s(record, wish)

        def alter(old: ContainerRecord) -> ContainerRecord:
            if old.goal is Goal.REMOVED:
                raise ConflictError(f"container {old.name} is marked for removal")
            return old.model_copy(
                update={
                    "goal": Goal.RUNNING,
                    "attempt": old.attempt + 1,
                    "stop_signal": wish.signal,
                    "stop_timeout_s": grace,
                }
            )

        await self._reach(await self._fleet.change(record, alter), grace + _START_LIMIT_S)

    async def kill(self, record: ContainerRecord, signal: str) -> None:
        """Send a signal. Raises ConflictError when it does not run."""
        if state_of(record, self._fleet.seen(record)) != "running":
            raise ConflictError(
                f"cannot kill container: {record.name}: container {record.id} is not running"
            )
        await self._fleet.ask(SIGNAL, Signal(container=record.id, signal=signal), record)
        await self._tell(record, "kill")

    async def _reach(self, record: ContainerRecord, limit_s: float) -> None:
        """Ask the host to reach the goal now.

        The goal is reached when the host says so or when its observation shows it, whichever comes
        first: the job may be lost, the host acts on the record all the same.
        """
        fleet = self._fleet
        with fleet.watching(record) as watch:
            async with TaskGroup() as tasks:
                asked = tasks.create_task(self._asked(record, limit_s))
                shown = tasks.create_task(_shown(watch, record))
                await asyncio.wait({asked, shown}, return_when=asyncio.FIRST_COMPLETED)
                if not shown.done() and isinstance(asked.result(), StaleError):
                    # A newer wish came in between: what becomes of both is shown.
                    await asyncio.wait({shown}, timeout=limit_s)
                answer = shown.result() if shown.done() else asked.result()
                asked.cancel()
                shown.cancel()
        if isinstance(answer, LabfleetError):
            raise answer
        if answer is not None:
            fleet.told(answer)

    async def _asked(
        self, record: ContainerRecord, limit_s: float
    ) -> Observation | LabfleetError | None:
        """Ask the host; None when it knows nothing of a container that is to be removed."""
        limit_s = min(limit_s, _LONGEST_WAIT_S)
        try:
            seen = await self._fleet.ask(RECONCILE, Reconcile(record=record), record, limit_s)
            return goals.failure(record, seen) or seen
        except UnavailableError as exc:
            return UnavailableError(
                f"{exc.message}: the wish ({record.goal}) is recorded and is carried out when "
                f"host {record.assignment.host} answers again"
            )
        except NotFoundError as exc:
            return None if record.goal is Goal.REMOVED else exc
        except LabfleetError as exc:
            return exc

    # -- remove

    async def remove(self, record: ContainerRecord, *, force: bool, with_volumes: bool) -> None:
        """Remove; returns when its name is free again. Raises ConflictError while it runs."""
        state = state_of(record, self._fleet.seen(record))
        if state == "removing":
            raise ConflictError(f"removal of container {record.name} is already in progress")
        if state == "running" and not force:
            raise ConflictError(
                f'cannot remove container "/{record.name}": container is running: '
                "stop the container before removing or force remove"
            )

        def alter(old: ContainerRecord) -> ContainerRecord:
            return old.model_copy(update={"goal": Goal.REMOVED, "remove_volumes": with_volumes})

        with self._fleet.watching(record) as watch:
            altered = await self._fleet.change(record, alter)
            if self._fleet.is_lost(record.assignment.host):
                return  # accepted: done when the host returns
            await self._reach(altered, _START_LIMIT_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GONE_LIMIT_S):
                    await self._gone(watch)

    @staticmethod
    async def _gone(watch: Watch) -> None:
        while not watch.is_gone:
            watch.moved.clear()
            await watch.moved.wait()

    # -- wait

    async def wait(self, record: ContainerRecord, watch: Watch, condition: str) -> int:
        """Wait for `not-running`, `next-exit` or `removed`; return the exit code.

        Raises UnavailableError when the container is gone and nobody knows its exit code any more.
        """
        first = watch.last
        base = first.attempt if first is not None and first.state >= State.EXITED else -1
        while True:
            watch.moved.clear()
            last = watch.last
            is_over = last is None or last.state >= State.EXITED
            if watch.is_gone:  # its name is free again
                break
            if condition == "not-running" and (is_over or (last and last.state < State.RUNNING)):
                break
            if condition == "next-exit" and last is not None and is_over and last.attempt > base:
                break
            await watch.moved.wait()
        last = watch.last
        if watch.is_gone and (last is None or last.state < State.EXITED):
            # It ended while this view of the fleet was behind: the store keeps the end for a minute.
            key = observed_key(record.assignment.host, record.id)
            entry = await self._fleet.memory.observed.bucket.get(key)
            if entry is None:
                raise UnavailableError(f"container {record.id} is gone; how it ended was not heard")
            last = entry.value
        return (last.exit_code or 0) if last else 0


def _grace_s(record: ContainerRecord, wish: StopWish) -> int:
    """Seconds until a stop kills. Raises InvalidRequestError for a signal that there is not."""
    if wish.signal is not None:
        number_of(wish.signal)
    grace = record.spec.stop_timeout_s if wish.timeout_s is None else wish.timeout_s
    return grace if grace >= 0 else _LONGEST_GRACE_S


async def _shown(watch: Watch, record: ContainerRecord) -> Observation | LabfleetError | None:
    """Wait until the container's observation shows the goal; None if its record is gone."""
    while not watch.is_gone:
        seen = watch.last
        if seen is not None and goals.is_reached(record, seen):
            return goals.failure(record, seen) or seen
        watch.moved.clear()
        await watch.moved.wait()
    return None
