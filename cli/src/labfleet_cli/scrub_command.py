"""`labfleet image scrub`: the image store reads all its blobs now, and the outcome is told."""

import sys
import time
from collections.abc import Callable

from labfleet_chassis.bus import Bus
from labfleet_cli.fleet_plan import FleetPlan
from labfleet_cli.memory import with_bus
from labfleet_proto.ids import OPERATORS
from labfleet_proto.message import Nothing
from labfleet_proto.scrubbing import SCRUB_STATE, START_SCRUB, ScrubState

_ASK_EVERY_S = 0.3
_SAY_EVERY_S = 10.0


def scrub(plan: FleetPlan, say: Callable[[str], None]) -> int:
    """Start a pass, wait for its end, say what it found; the command's exit code.

    The store goes on when nobody waits any more. Raises MachineError.
    """
    began_s = said_s = time.monotonic()
    state = with_bus(plan, _start)
    number = state.number
    while not state.is_over and state.number == number:
        time.sleep(_ASK_EVERY_S)
        state = with_bus(plan, _state)
        if time.monotonic() - said_s > _SAY_EVERY_S:
            said_s = time.monotonic()
            print(f"{state.bytes_read / 1e9:.1f} GB read", file=sys.stderr)
    say(
        f"{state.blobs} blobs, {state.bytes_read / 1e6:.1f} MB read in "
        f"{time.monotonic() - began_s:.1f} s: {len(state.found)} damaged, "
        f"{len(state.healed)} healed"
    )
    for digest in state.healed:
        say(f"healed: {digest}")
    for blob in state.damaged:
        say(f"set aside: {blob.digest} of {blob.names or 'nobody'}: push it again, or add a mirror")
    return 1 if any(blob.repositories for blob in state.damaged) else 0


async def _start(bus: Bus) -> ScrubState:
    return await bus.call(START_SCRUB, Nothing(), tenant=OPERATORS, subject="blobs")


async def _state(bus: Bus) -> ScrubState:
    return await bus.call(SCRUB_STATE, Nothing(), tenant=OPERATORS, subject="blobs")
