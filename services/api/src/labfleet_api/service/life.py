"""The life of a container: create, start, stop, kill, remove, wait."""

import asyncio
import contextlib
import random
import secrets
from dataclasses import dataclass

from labfleet_api.core import attachments, companions, goals, links, mounts, names
from labfleet_api.core import create as translate
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.image_defaults import image_defaults
from labfleet_api.core.platforms import check_platform
from labfleet_api.core.status import is_live, state_of
from labfleet_api.service.fleet import Fleet, Watch
from labfleet_api.service.networks import Networks
from labfleet_api.service.reaching import Reaching
from labfleet_chassis.caller import caller_is_admin
from labfleet_chassis.store import ExistsError
from labfleet_proto.buckets import name_key
from labfleet_proto.containers import (
    ContainerRecord,
    ContainerSpec,
    Goal,
    NameRecord,
    State,
    VolumeMount,
)
from labfleet_proto.errors import (
    ConflictError,
    InvalidRequestError,
    LabfleetError,
    NotFoundError,
    NotModifiedError,
    UnavailableError,
)
from labfleet_proto.ids import ContainerId, HostId
from labfleet_proto.images import RESOLVE_IMAGE, ImageQuery
from labfleet_proto.placement import PLACE, PlaceContainer
from labfleet_proto.restarts import ends_restarts
from labfleet_proto.runtime import SIGNAL, Signal
from labfleet_proto.signals import number_of

_START_LIMIT_S = 90.0
_GONE_LIMIT_S = 20.0
_KILLED_LIMIT_S = 10.0
_SIGKILL = 9
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
        self._reaching = Reaching(fleet)
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
        is_operator = caller_is_admin()
        wanted = attachments.wanted_networks(body, is_operator=is_operator)
        joined = await self._networks.attachments(wanted)
        spec = translate.specification(
            container,
            body,
            image_defaults(image.config),
            joined,
            new_volume=lambda: secrets.token_hex(32),
            inherited=self._inherited(body),
            is_operator=is_operator,
        )
        constraints = translate.constraints(spec.labels)
        shared = attachments.shared_with(body)
        if shared:
            spec, home = self._sharing(spec, shared)
            constraints = (*constraints, f"host=={home}")
        spec, homes = self._joining(spec, body)
        constraints = (*constraints, *(f"host=={home}" for home in homes))
        linked = self._linked(body)
        taken = await self._claim(container, wanted_name)
        if linked:
            spec = spec.model_copy(update={"link_env": links.environment(taken, linked)})
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
        await self._reaching.tell(placed.record, "create")
        return placed.record

    def _sharing(self, spec: ContainerSpec, text: str) -> tuple[ContainerSpec, HostId]:
        """Let a container be in another's network namespace; it goes to that one's host.

        Raises InvalidRequestError: a 404 would make clients pull the image.
        """
        try:
            other = self._fleet.find(text)
        except NotFoundError as exc:
            raise InvalidRequestError(exc.message) from exc
        changed: dict[str, object] = {
            "network_mode": f"container:{other.id}",
            "shares_network_of": other.spec.shares_network_of or other.id,
            "hostname": other.spec.hostname,
            "domainname": other.spec.domainname,
        }
        if other.spec.shares_with_host("network"):
            spec = companions.with_host(spec, {"network", "user"}, is_operator=caller_is_admin())
            changed["shares_network_of"] = None
        return spec.model_copy(update=changed), other.assignment.host

    def _joining(self, spec: ContainerSpec, body: CreateBody) -> tuple[ContainerSpec, set[HostId]]:
        """Let a container be in namespaces of others; it goes to their host. Raises InvalidRequestError."""
        wanted = companions.wanted(body.HostConfig) if body.HostConfig else {}
        try:
            others = {kind: self._fleet.find(text) for kind, text in wanted.items()}
        except NotFoundError as exc:  # a 404 would make clients pull the image
            raise InvalidRequestError(exc.message) from exc
        if not others:
            return spec, set()
        found = companions.joined(spec, others, is_operator=caller_is_admin())
        return found, {other.assignment.host for other in others.values()}

    def _linked(self, body: CreateBody) -> list[tuple[str, ContainerRecord]]:
        """Links of the request with the containers that they name. Raises InvalidRequestError."""
        found = []
        for text in (body.HostConfig.Links if body.HostConfig else None) or ():
            name = attachments.parse_link(text)[0]
            try:
                found.append((text, self._fleet.find(name)))
            except NotFoundError as exc:
                raise InvalidRequestError(
                    f"could not get container for {name}: {exc.message}"
                ) from exc
        return found

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
                    raise await name_conflict(self._fleet, name) from exc
                continue
            return wish
        raise ConflictError("no free name was found; give one with --name")

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
            if state == "paused":
                raise ConflictError("cannot start a paused container, try unpause instead")
            if is_live(state) and old.goal is Goal.RUNNING:
                raise NotModifiedError(f"container {old.name} is already running")
            return old.model_copy(
                update={"goal": Goal.RUNNING, "attempt": old.attempt + 1, "paused_run": None}
            )

        await self._reaching.reach(await self._fleet.change(record, alter), _START_LIMIT_S)

    async def stop(self, record: ContainerRecord, wish: StopWish) -> None:
        """Stop; returns when it has ended. Raises NotModifiedError.

        A start that is still on its way is called off.
        """
        grace = _grace_s(record, wish)

        def alter(old: ContainerRecord) -> ContainerRecord:
            seen = self._fleet.seen(old)
            if not is_live(state_of(old, seen)) and not goals.is_pending_start(old, seen):
                raise NotModifiedError(f"container {old.name} is not running")
            return old.model_copy(
                update={
                    "goal": Goal.STOPPED,
                    "paused_run": None,
                    "stop_signal": wish.signal,
                    "stop_timeout_s": grace,
                }
            )

        await self._reaching.reach(await self._fleet.change(record, alter), grace + _START_LIMIT_S)

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
                    "paused_run": None,
                    "stop_signal": wish.signal,
                    "stop_timeout_s": grace,
                }
            )

        changed = await self._fleet.change(record, alter)
        await self._reaching.reach(changed, grace + _START_LIMIT_S)
        await self._reaching.tell(changed, "restart")

    async def kill(self, record: ContainerRecord, signal: str) -> None:
        """Send a signal; one that is to end a paused container lets it go on.

        Raises ConflictError when it does not run, InvalidRequestError.
        """
        number, fleet = number_of(signal), self._fleet
        state = state_of(record, fleet.seen(record))
        if not is_live(state):
            raise ConflictError(
                f"cannot kill container: {record.name}: container {record.id} is not running"
            )
        if state == "paused" and ends_restarts(number, number_of(record.spec.stop_signal)):
            await fleet.change(record, lambda old: old.model_copy(update={"paused_run": None}))
        with fleet.watching(record) as watch:
            await fleet.ask(SIGNAL, Signal(container=record.id, signal=signal), record)
            if number == _SIGKILL:  # as docker: whoever looks next sees it ended
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_KILLED_LIMIT_S):
                        await self._ended(record, watch)

    async def _ended(self, record: ContainerRecord, watch: Watch) -> None:
        before = self._fleet.seen(record)
        while not watch.is_gone:
            watch.moved.clear()
            seen = self._fleet.seen(record)
            is_same_run = seen is not None and before is not None and seen.run == before.run
            if not is_same_run or seen is None or seen.state >= State.EXITED:
                return
            await watch.moved.wait()

    # -- remove

    async def remove(self, record: ContainerRecord, *, force: bool, with_volumes: bool) -> None:
        """Remove; returns when its name is free again. Raises ConflictError while it runs."""
        state = state_of(record, self._fleet.seen(record))
        if state == "removing":
            raise ConflictError(f"removal of container {record.name} is already in progress")
        if is_live(state) and not force:
            advice = (
                "and must be unpaused first"
                if state == "paused"
                else ": stop the container before removing or force remove"
            )
            joint = " " if state == "paused" else ""
            raise ConflictError(
                f'cannot remove container "/{record.name}": container is {state}{joint}{advice}'
            )

        def alter(old: ContainerRecord) -> ContainerRecord:
            return old.model_copy(update={"goal": Goal.REMOVED, "remove_volumes": with_volumes})

        with self._fleet.watching(record) as watch:
            altered = await self._fleet.change(record, alter)
            if self._fleet.is_lost(record.assignment.host):
                return  # accepted: done when the host returns
            await self._reaching.reach(altered, _START_LIMIT_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GONE_LIMIT_S):
                    await self._gone(watch)

    @staticmethod
    async def _gone(watch: Watch) -> None:
        while not watch.is_gone:
            watch.moved.clear()
            await watch.moved.wait()


def _grace_s(record: ContainerRecord, wish: StopWish) -> int:
    """Seconds until a stop kills. Raises InvalidRequestError for a signal that there is not."""
    if wish.signal is not None:
        number_of(wish.signal)
    grace = record.spec.stop_timeout_s if wish.timeout_s is None else wish.timeout_s
    return grace if grace >= 0 else _LONGEST_GRACE_S


async def name_conflict(fleet: Fleet, name: str) -> ConflictError:
    """Docker's words for a name that is taken."""
    holder = await fleet.memory.names.get(name_key(fleet.tenant, name))
    who = holder.value.id if holder else "another one"
    return ConflictError(
        f'Conflict. The container name "/{name}" is already in use by container "{who}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
