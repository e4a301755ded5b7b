"""What the commands of `labfleet` share."""

from typing import Annotated

import typer

from labfleet_cli import fleet
from labfleet_cli.fleet_plan import FleetPlan
from labfleet_cli.machine import MachineError

FleetName = Annotated[
    str,
    typer.Option(
        "--fleet",
        envvar="LABFLEET_FLEET",
        help="Name of the fleet; directories, ports and kernel names follow from it.",
    ),
]


def require_plan(name: str) -> FleetPlan:
    """The fleet as it was brought up. Raises MachineError if it never was."""
    plan = fleet.load(name)
    if plan is None:
        raise MachineError(f"there is no fleet {name} on this machine: `labfleet up` makes one")
    return plan
