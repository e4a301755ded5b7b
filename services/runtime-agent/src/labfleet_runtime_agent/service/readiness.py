"""Has network namespaces made ready for the containers that come next.

A namespace belongs to the user ids of one container, so the network service must know whose turn it is.
"""

import asyncio
import contextlib

from labfleet_proto.errors import LabfleetError
from labfleet_proto.ids import OPERATORS
from labfleet_proto.networks import PREPARE_NAMESPACES, PrepareNamespaces, UserIds
from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER
from labfleet_runtime_agent.core.uid_slots import UidSlots
from labfleet_runtime_agent.service.tools import Tools

_READY = 64
_LOW = 16
"""Below this more are wanted at once."""
_QUIET_S = 0.5
"""Otherwise when so long nobody came or went and not all places for starts were taken: a class that
starts needs the processor for itself."""
_AGAIN_S = 10.0
"""Told again, for a network service that has begun anew."""


def owner(first: int) -> UserIds:
    """The ids of a container, whose namespaces are its own."""
    return UserIds(first=first, count=IDS_PER_CONTAINER)


def owners(slots: UidSlots) -> tuple[UserIds, ...]:
    """Those who come next."""
    return tuple(owner(slots.first_id(slot)) for slot in slots.upcoming(_READY))


async def keep(tools: Tools) -> None:
    """Tell whose turn it is, for ever. Nobody waits for it; what is lost is told again."""
    slots = tools.files.slots
    moved = asyncio.Event()
    slots.listen(moved.set)
    while True:
        moved.clear()
        told = owners(slots)
        with contextlib.suppress(LabfleetError):
            await tools.bus.call(
                PREPARE_NAMESPACES,
                PrepareNamespaces(owners=told),
                tenant=OPERATORS,
                subject=tools.host,
                host=tools.host,
                timeout_s=_AGAIN_S,
            )
        if await _moves(moved, _AGAIN_S):
            while len({*told} & {*owners(slots)}) >= _LOW:
                moved.clear()
                if not await _moves(moved, _QUIET_S) and not tools.start_slots.locked():
                    break


async def _moves(moved: asyncio.Event, limit_s: float) -> bool:
    """Wait until a range is taken or given back; whether one was."""
    try:
        async with asyncio.timeout(limit_s):
            await moved.wait()
    except TimeoutError:
        return False
    return True
