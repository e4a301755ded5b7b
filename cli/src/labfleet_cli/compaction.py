"""Compaction of the fleet's memory before its processes start (`labfleet_chassis.compaction`)."""

import asyncio
import subprocess

from labfleet_chassis.compaction import compact_at
from labfleet_cli.fleet_plan import FleetPlan
from labfleet_cli.machine import MachineError
from labfleet_proto.errors import LabfleetError

_MANY_MESSAGES = 100_000
"""A bucket of so many messages is looked at; a service reads them in about three seconds."""
_WORTH_A_LOOK_BYTES = 16 << 20
"""Below this the server's files cannot hold many messages: a deletion takes about 150 bytes."""


def compact_if_large(plan: FleetPlan) -> None:
    """Compact the memory of a fleet whose processes do not run. Raises MachineError."""
    aside = plan.state_dir / "compaction"
    files = (plan.state_dir / "nats").rglob("*.blk")
    if not aside.exists() and sum(file.stat().st_size for file in files) < _WORTH_A_LOOK_BYTES:
        return
    server = subprocess.Popen(
        plan.children()[0].argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        asyncio.run(compact_at(plan.nats_url, plan.choices.nats_token, aside, _MANY_MESSAGES))
    except (OSError, LabfleetError) as exc:
        raise MachineError(f"compaction of {plan.state_dir / 'nats'}: {exc}") from exc
    finally:
        server.terminate()
        server.wait()
