"""Work that may fail alone, logged and counted; loops are run again, with a pause that grows."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from labfleet_chassis.logs import Log
from labfleet_chassis.metrics import LOOP_FAILURES
from labfleet_proto.errors import IllegalTransitionError, TransientError

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0


async def supervise(name: str, loop: Callable[[], Awaitable[None]], log: Log) -> None:
    """Run `loop` until it returns; after a failure pause 0.1 s, growing to 10 s, and run it again.

    Cancellation passes through. An `IllegalTransitionError` is a bug and passes through too.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        began_s = time.monotonic()
        try:
            await loop()
        except IllegalTransitionError:
            raise
        except TransientError as exc:
            log.warning("loop.interrupted", loop=name, error=exc.message)
        except Exception:  # the top of a loop: logged once
            log.exception("loop.failed", loop=name)
        else:
            return
        LOOP_FAILURES.labels(name).inc()
        if time.monotonic() - began_s > _LONGEST_PAUSE_S:
            pause_s = _FIRST_PAUSE_S
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


async def alone(name: str, work: Awaitable[None], log: Log) -> None:
    """Do `work` once; what it raises ends nothing else. Cancellation passes through."""
    try:
        await work
    except Exception:  # the top of a task: logged once
        log.exception("task.failed", task=name)
        LOOP_FAILURES.labels(name).inc()
