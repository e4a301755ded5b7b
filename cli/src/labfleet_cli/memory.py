"""The fleet's memory as the operator's command line reaches it: over the bus, for one piece of work."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from labfleet_chassis import bus as bus_module
from labfleet_chassis import logs
from labfleet_chassis.bus import Bus
from labfleet_chassis.clock import SystemClock
from labfleet_cli import fleet
from labfleet_cli.fleet_plan import FleetPlan
from labfleet_cli.machine import MachineError
from labfleet_cli.tenancy import Tenancy
from labfleet_proto.errors import LabfleetError
from labfleet_proto.ids import OPERATORS, TenantId

R = TypeVar("R")

_LIMIT_S = 30.0


def with_tenancy(plan: FleetPlan, work: Callable[[Tenancy], Awaitable[R]]) -> R:
    """Do something with tenants. Raises MachineError with the reason."""
    return with_bus(plan, lambda bus: work(Tenancy(bus)))


def with_bus(plan: FleetPlan, work: Callable[[Bus], Awaitable[R]], limit_s: float = _LIMIT_S) -> R:
    """Do something in the fleet's memory. Raises MachineError with the reason."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

    async def connected() -> R | LabfleetError:
        async with (
            asyncio.timeout(limit_s),
            bus_module.connect(
                plan.nats_url,
                plan.choices.nats_token,
                name="labfleet-cli",
                clock=SystemClock(),
                log=logs.get("cli"),
            ) as bus,
        ):
            try:
                return await work(bus)
            except LabfleetError as exc:
                return exc  # raised here it would come out wrapped in groups

    if fleet.supervisor_pid(plan) is None:
        raise MachineError(f"the fleet {plan.name} is not up: `labfleet up`")
    try:
        outcome = asyncio.run(connected())
    except TimeoutError as exc:
        raise MachineError(f"the fleet's memory did not answer in {limit_s:g} s") from exc
    if isinstance(outcome, LabfleetError):
        raise MachineError(outcome.message) from outcome
    return outcome


def everyone(plan: FleetPlan) -> list[TenantId]:
    """The operators and all tenants. Raises MachineError."""

    async def names(tenancy: Tenancy) -> list[TenantId]:
        return [OPERATORS, *(each.id for each in await tenancy.every())]

    return with_tenancy(plan, names)
