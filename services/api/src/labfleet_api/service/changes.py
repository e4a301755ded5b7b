"""Changes to a container that stays what it is: its name, its limits, paused or not."""

import asyncio

from fastapi import APIRouter, Request, Response

from labfleet_api.core import names
from labfleet_api.core.status import is_live, state_of
from labfleet_api.core.updates import UpdateBody, updated
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, read_body
from labfleet_api.service.life import name_conflict
from labfleet_api.service.reaching import Reaching
from labfleet_chassis.store import ExistsError
from labfleet_proto.buckets import name_key
from labfleet_proto.containers import ContainerRecord, NameRecord
from labfleet_proto.errors import (
    ConflictError,
    InternalError,
    InvalidRequestError,
    LabfleetError,
    StaleError,
    UnavailableError,
)
from labfleet_proto.runtime import ADMIT_LIMITS, AdmitLimits

_TRIES = 5
_AGAIN_S = 0.05


class Changes:
    """Changes records and asks the hosts to follow now."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._reaching = Reaching(fleet)

    # -- name

    async def rename(self, record: ContainerRecord, text: str) -> None:
        """Give another name: claimed by a create-only write, the old one is free afterwards.

        A crash in between leaves a claim without its container: the scheduler drops it.
        Raises InvalidRequestError, ConflictError.
        """
        fleet = self._fleet
        if not text.removeprefix("/"):
            raise InvalidRequestError("Neither old nor new names may be empty")
        name = names.checked_container_name(text)
        if name == record.name:
            raise InvalidRequestError("Renaming a container with the same name as its current name")
        key = name_key(fleet.tenant, name)
        claim = NameRecord(id=record.id, created_at_ns=fleet.clock.now_ns())
        try:
            await fleet.memory.names.create(key, claim)
        except ExistsError as exc:
            raise await name_conflict(fleet, name) from exc
        former = record.name

        def alter(old: ContainerRecord) -> ContainerRecord:
            nonlocal former
            _require_stays(old, fleet)
            former = old.name
            return old.model_copy(update={"name": name})

        try:
            changed = await fleet.change(record, alter)
        except UnavailableError:
            raise  # it may have been renamed
        except LabfleetError:
            await self._give_back(key, record)
            raise
        await self._give_back(name_key(fleet.tenant, former), record)
        await self._reaching.tell(changed, "rename", {"oldName": f"/{former}"})

    async def _give_back(self, key: str, record: ContainerRecord) -> None:
        """Free a name, if it is this container's and not the one it now has."""
        bucket = self._fleet.memory.names
        for _ in range(_TRIES):
            there = await bucket.get(key)
            if there is None or there.value.id != record.id:
                return
            try:
                await bucket.delete(key, there.revision)
            except StaleError:
                await asyncio.sleep(_AGAIN_S)
            else:
                return

    # -- pause

    async def pause(self, record: ContainerRecord) -> None:
        """Pause; returns when every process has stopped. Raises ConflictError."""

        def alter(old: ContainerRecord) -> ContainerRecord:
            seen = self._fleet.seen(old)
            state = state_of(old, seen)
            if state == "restarting":
                raise ConflictError(
                    f"Container {old.id} is restarting, wait until the container is running"
                )
            if state == "paused":
                raise ConflictError(f"Container {old.id} is already paused")
            if seen is None or state != "running":
                raise ConflictError(f"Container {old.id} is not running")
            return old.model_copy(update={"paused_run": seen.run})

        await self._reaching.reach(await self._fleet.change(record, alter))

    async def unpause(self, record: ContainerRecord) -> None:
        """Let a paused container go on. Raises ConflictError, InternalError (docker's 500)."""

        def alter(old: ContainerRecord) -> ContainerRecord:
            seen = self._fleet.seen(old)
            state = state_of(old, seen)
            is_on_its_way = seen is not None and old.paused_run == seen.run and is_live(state)
            if state != "paused" and not is_on_its_way:
                raise InternalError(f"Container {old.id} is not paused")
            return old.model_copy(update={"paused_run": None})

        await self._reaching.reach(await self._fleet.change(record, alter))

    # -- limits

    async def update(self, record: ContainerRecord, body: UpdateBody) -> None:
        """Change limits and restart policy.

        The host is asked first and holds the room: one that refuses leaves everything as it was.
        Raises NoRoomError, InvalidRequestError, ConflictError, InternalError, UnavailableError.
        """
        fleet = self._fleet
        _require_stays(record, fleet)
        wanted = updated(record.spec, body)
        old_limits = record.spec.limits
        if wanted.limits != old_limits:
            question = AdmitLimits(container=record.id, limits=wanted.limits)
            await fleet.ask(ADMIT_LIMITS, question, record)

        def alter(old: ContainerRecord) -> ContainerRecord:
            _require_stays(old, fleet)
            if old.spec.limits != old_limits:
                raise ConflictError(f"container {old.name} is being changed by others, try again")
            return old.model_copy(update={"spec": updated(old.spec, body)})

        changed = await fleet.change(record, alter)
        if wanted.limits != old_limits and is_live(state_of(changed, fleet.seen(changed))):
            await self._enforce(changed, old_limits_of=record)
        await self._reaching.tell(changed, "update")

    async def _enforce(self, changed: ContainerRecord, *, old_limits_of: ContainerRecord) -> None:
        """Bring the limits into force; what the kernel refuses is taken back."""
        try:
            await self._reaching.follow(changed)
        except InternalError:
            before = {"limits": old_limits_of.spec.limits}

            def restore(old: ContainerRecord) -> ContainerRecord:
                return old.model_copy(update={"spec": old.spec.model_copy(update=before)})

            await self._fleet.change(changed, restore)
            raise


def _require_stays(record: ContainerRecord, fleet: Fleet) -> None:
    if state_of(record, fleet.seen(record)) == "removing":
        raise ConflictError(
            f"Cannot update container {record.id}: container is marked for removal and cannot be "
            '"update"'
        )


def router(fleet: Fleet, changes: Changes) -> APIRouter:
    """Routes of these changes."""
    routes = APIRouter()

    @routes.post("/containers/{text}/rename")
    async def rename(text: str, request: Request) -> Response:
        await changes.rename(fleet.find(text), request.query_params.get("name", ""))
        return Response(status_code=204)

    @routes.post("/containers/{text}/pause")
    async def pause(text: str) -> Response:
        await changes.pause(fleet.find(text))
        return Response(status_code=204)

    @routes.post("/containers/{text}/unpause")
    async def unpause(text: str) -> Response:
        await changes.unpause(fleet.find(text))
        return Response(status_code=204)

    @routes.post("/containers/{text}/update")
    async def update(text: str, request: Request) -> Response:
        body = await read_body(request, UpdateBody)
        await changes.update(fleet.find(text), body)
        return answer({"Warnings": None})

    return routes
