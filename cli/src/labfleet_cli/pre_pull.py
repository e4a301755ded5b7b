"""`labfleet image pre-pull`: an image is on the hosts before the class begins."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import typer

from labfleet_chassis.bus import Bus
from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_cli.fleet_places import DEFAULT_FLEET
from labfleet_cli.machine import MachineError
from labfleet_cli.memory import with_bus
from labfleet_cli.options import FleetName, require_plan
from labfleet_proto import buckets
from labfleet_proto.errors import (
    InvalidRequestError,
    LabfleetError,
    NotFoundError,
    TransientError,
    UnavailableError,
)
from labfleet_proto.host_policies import HostPolicy, labels_of
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import OPERATORS, HostId, TenantId
from labfleet_proto.images import ImagePin
from labfleet_proto.layers import FETCH_LAYERS, FetchLayers, FetchProgress
from labfleet_proto.upstreams import FETCH_IMAGE, FetchImage

_ASK_EVERY_S = 0.5
_TRIES = 5
"""Failures of one host in a row before it is given up."""

Say = Callable[[HostId, FetchProgress], None]


def chosen(
    hosts: Iterable[tuple[HostRecord, HostPolicy | None]],
    names: Sequence[str],
    labels: Sequence[str],
) -> list[HostId]:
    """The hosts that are named and those with a label; all of them if neither is asked for.

    Raises NotFoundError for a name or a label that no host has, InvalidRequestError.
    """
    known = {record.id: labels_of(record, policy) for record, policy in hosts}
    wanted: set[HostId] = set()
    for name in names:
        if HostId(name) not in known:
            there = ", ".join(sorted(known)) or "none"
            raise NotFoundError(f"no host {name} gives a sign of life: there are {there}")
        wanted.add(HostId(name))
    for label in labels:
        key, sign, value = label.partition("=")
        if not (key and sign):
            raise InvalidRequestError(f"--label {label}: it is key=value")
        found = {host for host, has in known.items() if has.get(key) == value}
        if not found:
            raise NotFoundError(f"no host has the label {label}")
        wanted |= found
    if not (names or labels):
        wanted = set(known)
    return sorted(wanted)


class PrePull:
    """Fetches one image to many hosts."""

    def __init__(self, bus: Bus, tenant: TenantId, say: Say) -> None:
        self._bus = bus
        self._tenant = tenant
        self._say = say

    async def run(
        self, reference: str, names: Sequence[str], labels: Sequence[str]
    ) -> dict[HostId, str]:
        """Fetch; return by host why it was not possible, empty where it was.

        Doing it again fetches only what is missing. Raises LabfleetError.
        """
        image = await self._bus.call(
            FETCH_IMAGE, FetchImage(reference=reference), tenant=self._tenant, subject=reference
        )
        hosts = chosen(await self._alive(), names, labels)
        if not hosts:
            raise UnavailableError("no host gives a sign of life")
        problems: dict[HostId, str] = {}

        async def one(host: HostId) -> None:
            problems[host] = await self._fetch(host, image.pin)

        try:
            async with TaskGroup() as tasks:
                for host in hosts:
                    tasks.create_task(one(host))
        except ExceptionGroup as group:
            raise first_of(group) from None
        return problems

    async def _alive(self) -> list[tuple[HostRecord, HostPolicy | None]]:
        hosts = await (await self._bus.bucket(buckets.HOSTS)).values()
        leases = await (await self._bus.bucket(buckets.LEASES)).values()
        policies = await (await self._bus.bucket(buckets.HOST_POLICIES)).values()
        return [(hosts[key], policies.get(key)) for key in sorted(hosts) if key in leases]

    async def _fetch(self, host: HostId, image: ImagePin) -> str:
        """Ask until it is there; return why it was given up, or nothing."""
        failures = 0
        while True:
            try:
                state = await self._bus.call(
                    FETCH_LAYERS,
                    FetchLayers(image=image),
                    tenant=self._tenant,
                    subject=image.reference,
                    host=host,
                )
                problem = state.problem
                self._say(host, state)
                if state.is_done:
                    return ""
            except TransientError as exc:
                problem = exc.message
            except LabfleetError as exc:
                return exc.message
            failures = failures + 1 if problem else 0
            if failures == _TRIES:
                return problem
            await asyncio.sleep(_ASK_EVERY_S)


class Progress:
    """Says how far each host is: one line in place on a terminal, a line a host and tenth elsewhere."""

    def __init__(self) -> None:
        self._states: dict[HostId, FetchProgress] = {}
        self._said: dict[HostId, int] = {}
        self._is_terminal = sys.stdout.isatty()

    def say(self, host: HostId, state: FetchProgress) -> None:
        """Take a host's state."""
        self._states[host] = state
        if self._is_terminal:
            here = sum(each.here_bytes for each in self._states.values())
            total = sum(each.total_bytes for each in self._states.values())
            done = sum(each.is_done for each in self._states.values())
            line = f"{done} of {len(self._states)} hosts done, {_mb(here)} of {_mb(total)}"
            print(f"\r\x1b[K{line}", end="", flush=True)
            return
        share = 10 * state.here_bytes // state.total_bytes if state.total_bytes else 10
        tenths = 10 if state.is_done else min(share, 9)
        if self._said.get(host) != tenths:
            self._said[host] = tenths
            word = "done" if state.is_done else f"{tenths * 10}%"
            print(f"{host}: {word} ({_mb(state.total_bytes)})", flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._is_terminal:
            print()


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}MB"


def pre_pull(  # noqa: PLR0913, PLR0917 - options of a command
    image: Annotated[str, typer.Argument(help="Name, with a tag or a digest perhaps.")],
    host: Annotated[list[str] | None, typer.Option(help="Only this host; repeatable.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only hosts with key=value; repeatable.")
    ] = None,
    every: Annotated[  # noqa: FBT002 - an option
        bool, typer.Option("--all", help="All hosts, as without a choice.")
    ] = False,
    tenant: Annotated[str, typer.Option(help="Whose image it is.")] = OPERATORS,
    limit: Annotated[float, typer.Option("--timeout", help="Seconds.", min=1)] = 3600,
    fleet: FleetName = DEFAULT_FLEET,
) -> None:
    """Fetch an image to hosts, so that containers of it start there at once; again it changes nothing."""
    if every and (host or label):
        raise MachineError("--all goes with neither --host nor --label")
    progress = Progress()
    problems = with_bus(
        require_plan(fleet),
        lambda bus: PrePull(bus, TenantId(tenant), progress.say).run(
            image, host or (), label or ()
        ),
        limit_s=limit,
    )
    progress.end()
    failed = {each: why for each, why in problems.items() if why}
    for each, why in sorted(failed.items()):
        print(f"{each}: {why}", file=sys.stderr)
    print(f"{image} is on {len(problems) - len(failed)} of {len(problems)} hosts")
    if failed:
        raise typer.Exit(1)
