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

_READY = 32
_SETTLE_S = 0.2
"""Told when so long has passed since the first of a row of starts: the work is done in idle time."""
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
    moved = asyncio.Event()
    tools.files.slots.listen(moved.set)
    while True:
        moved.clear()
        with contextlib.suppress(LabfleetError):
            await tools.bus.call(
                PREPARE_NAMESPACES,
                PrepareNamespaces(owners=owners(tools.files.slots)),
                tenant=OPERATORS,
                subject=tools.host,
                host=tools.host,
                timeout_s=_AGAIN_S,
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_S):
                await moved.wait()
        await asyncio.sleep(_SETTLE_S)
