"""Containers that join and leave networks after they were made."""

import asyncio

from labfleet_api.core.attachments import endpoint_wish
from labfleet_api.core.place_bodies import ConnectBody, DisconnectBody
from labfleet_api.core.status import state_of
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.networks import Networks
from labfleet_proto.containers import ContainerRecord, Goal, NetworkAttachment, State
from labfleet_proto.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    LabfleetError,
    StaleError,
    UnavailableError,
)
from labfleet_proto.ids import NetworkId
from labfleet_proto.networks import NetworkRecord
from labfleet_proto.runtime import RECONCILE, Reconcile

_LIMIT_S = 20.0
_LIVE = (State.CREATED, State.RUNNING)


class Joins:
    """Changes a container's networks in its record; its host follows, at once if it runs."""

    def __init__(self, fleet: Fleet, networks: Networks) -> None:
        self._fleet = fleet
        self._networks = networks

    async def connect(self, network: NetworkRecord, body: ConnectBody) -> None:
        """Join a network. Raises NotFoundError, ForbiddenError, ConflictError, InvalidRequestError.

        A running container that cannot join (its address is taken, say) is as it was.
        """
        body.refuse_unserved()
        record = self._fleet.find(_named(body.Container))
        wish = endpoint_wish(body.EndpointConfig)
        joined = self._networks.attachment(network, wish)

        def alter(old: ContainerRecord) -> ContainerRecord:
            _refuse_fixed(old)
            is_there = any(each.network_id == network.id for each in old.spec.networks)
            if is_there and self._is_running(old):
                raise ForbiddenError(
                    f"endpoint with name {old.name} already exists in network {network.name}"
                )
            return _with_networks(old, (*_without(old, network.id), joined))

        altered = await self._fleet.change(record, alter)
        try:
            await self._follow(altered)
        except UnavailableError:
            raise
        except LabfleetError:
            await self._fleet.change(
                altered, lambda old: _with_networks(old, _without(old, network.id))
            )
            raise

    async def disconnect(self, network: NetworkRecord, body: DisconnectBody) -> None:
        """Leave a network. Raises NotFoundError, ForbiddenError (it is not in it)."""
        body.refuse_unserved()
        record = self._fleet.find(_named(body.Container))

        def alter(old: ContainerRecord) -> ContainerRecord:
            if all(each.network_id != network.id for each in old.spec.networks):
                raise ForbiddenError(
                    f"container {old.id} is not connected to network {network.name}"
                )
            return _with_networks(old, _without(old, network.id))

        altered = await self._fleet.change(record, alter)
        try:
            await self._follow(altered)
        except UnavailableError:
            if not body.Force:  # the wish is recorded: it is carried out when the host returns
                raise

    def _is_running(self, record: ContainerRecord) -> bool:
        return state_of(record, self._fleet.seen(record)) not in ("created", "exited", "removing")

    async def _follow(self, record: ContainerRecord) -> None:
        """Wait until its host has done it, if it runs. Raises what prevented it."""
        fleet = self._fleet
        if record.goal is not Goal.RUNNING or not self._is_running(record):
            return
        with fleet.watching(record) as watch:
            try:
                seen = await fleet.ask(RECONCILE, Reconcile(record=record), record, _LIMIT_S)
            except StaleError:  # a newer wish came in between, and the networks are done with it
                async with asyncio.timeout(_LIMIT_S):
                    while watch.last is None or watch.last.generation < record.generation:
                        watch.moved.clear()
                        await watch.moved.wait()
                return
        fleet.told(seen)


def _named(text: str) -> str:
    if not text:
        raise InvalidRequestError("Container: no container was named")
    return text


def _without(record: ContainerRecord, network: NetworkId) -> tuple[NetworkAttachment, ...]:
    return tuple(each for each in record.spec.networks if each.network_id != network)


def _with_networks(
    record: ContainerRecord, networks: tuple[NetworkAttachment, ...]
) -> ContainerRecord:
    return record.model_copy(update={"spec": record.spec.model_copy(update={"networks": networks})})


def _refuse_fixed(record: ContainerRecord) -> None:
    mode = record.spec.network_mode
    if record.goal is Goal.REMOVED:
        raise ConflictError(f"container {record.id} is marked for removal and cannot be connected")
    if mode == "none":
        raise ForbiddenError(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )
    if mode == "host" or mode.startswith("container:"):
        raise ForbiddenError(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
