"""A container that stands still while its files are read, as docker pauses it for a commit.

Nothing of it is recorded: the pause lasts as long as the stream that reads, so whoever dies meanwhile, the
container goes on. A new life of the agent finds it frozen without a wish for it, and lets it go on.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from labfleet_proto.errors import UnavailableError
from labfleet_runtime_agent.service import changing
from labfleet_runtime_agent.service.live import Live

_LONGEST_S = 600.0
"""A reader that takes no more must not hold a container for ever."""


@contextlib.asynccontextmanager
async def standing_still(live: Live) -> AsyncIterator[None]:
    """Freeze a running container for the time of the block; one that its owner has paused stays so.

    Raises InternalError for processes that will not stop, UnavailableError after ten minutes.
    """
    live.readers_still += 1
    try:
        if live.is_running and live.seen is not None and not live.seen.is_paused:
            await changing.freeze(live)
        async with asyncio.timeout(_LONGEST_S):
            yield
    except TimeoutError as exc:
        raise UnavailableError(f"reading {live.record.id} took more than {_LONGEST_S:g} s") from exc
    finally:
        live.readers_still -= 1
        live.wake.set()  # the worker lets it go on, unless its owner wants it paused
