"""Start and stop of a whole fleet on this machine."""

import asyncio
import contextlib
import hashlib
import ipaddress
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import structlog

from labfleet_chassis import bus as bus_module
from labfleet_chassis import logs
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.durable_files import write_durably
from labfleet_cli import machine
from labfleet_cli.authority import Authority
from labfleet_cli.compaction import compact_if_large
from labfleet_cli.fleet_places import (
    free_place,
    near_underlays,
    port_bases,
    underlays,
)
from labfleet_cli.fleet_plan import (
    MOST_HOSTS,
    Choices,
    FleetPlan,
)
from labfleet_cli.machine import MachineError
from labfleet_proto.health import Pong

Say = Callable[[str], None]

_READY_LIMIT_S = 90.0
_END_LIMIT_S = 40.0
_BUS_LIMIT_S = 3.0


def load(name: str) -> FleetPlan | None:
    """The fleet as it was last brought up; None if it never was."""
    path = Path("/var/lib") / name / "fleet.json"
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    for key in ("labels", "tls_names"):
        stored[key] = tuple(stored.get(key, ()))
    return FleetPlan(Choices(**stored), machine.total_memory_bytes())


def _taken(name: str, choice: str) -> set[int]:
    """What the other fleets of this machine have chosen."""
    found: set[int] = set()
    for file in Path("/var/lib").glob("*/fleet.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            other = json.loads(file.read_text())
            if other["name"] != name:
                found.add(int(other[choice]))
    return found


def choose(name: str, wishes: Mapping[str, object]) -> FleetPlan:
    """Merge wishes (None means none) with what is stored, or with the defaults. Raises MachineError."""
    known = load(name)
    choices = (
        known.choices
        if known
        else Choices(
            name=name,
            hosts=1,
            port_base=free_place(port_bases(name), _taken(name, "port_base")),
            underlay=free_place(underlays(name), near_underlays(_taken(name, "underlay"))),
            tcp="",
            score="spread",
            nats_token=secrets.token_hex(24),
            data_key=secrets.token_hex(32),
        )
    )
    said = {key: value for key, value in wishes.items() if value is not None}
    wanted = replace(choices, **said)  # type: ignore[arg-type]  # checked below
    if not 1 <= wanted.hosts <= MOST_HOSTS:
        raise MachineError(f"{wanted.hosts} hosts: one machine carries 1 to {MOST_HOSTS}")
    if known and wanted.hosts < known.choices.hosts:
        raise MachineError(
            f"the fleet has {known.choices.hosts} hosts and cannot shrink to {wanted.hosts}: "
            "their containers would be lost. `make down ALL=1` removes the fleet"
        )
    if known and (wanted.port_base, wanted.underlay) != (choices.port_base, choices.underlay):
        raise MachineError("ports and underlay cannot change: `make down ALL=1` first")
    for listener in (wanted.tcp, wanted.tls):
        if listener:
            split_listener(listener)
    if wanted.tcp and not ipaddress.ip_address(split_listener(wanted.tcp)[0]).is_loopback:
        raise MachineError(
            f"--tcp {wanted.tcp}: tokens would cross the network in the clear; use --tls there"
        )
    return FleetPlan(wanted, machine.total_memory_bytes())


def split_listener(text: str) -> tuple[str, int]:
    """Address and port to listen on. Raises MachineError."""
    address, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(address)
        number = int(port)
    except ValueError as exc:
        raise MachineError(f"{text!r}: a listener is ADDRESS:PORT, such as 0.0.0.0:2376") from exc
    return address, number


def supervisor_pid(plan: FleetPlan) -> int | None:
    """Pid of the fleet's running supervisor."""
    try:
        pid = int((plan.run_dir / "supervisor.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(plan.run_dir / "plan.json") in words else None


def _digest(plan: FleetPlan) -> str:
    children = json.dumps([asdict(child) for child in plan.children()])
    return hashlib.sha256(children.encode() + plan.nats_config().encode()).hexdigest()


def start(plan: FleetPlan, say: Say) -> bool:
    """Make the machine ready and start the processes; False if they run already as planned."""
    with machine.locked(Path("/run") / f"{plan.name}.lock"):
        machine.mount_run_dir(plan)
        digest = plan.run_dir / "plan.digest"
        if supervisor_pid(plan) is not None:
            if digest.exists() and digest.read_text() == _digest(plan):
                return False
            say("the plan has changed: restarting the services (containers live on)")
            stop(plan)
        _check_ports(plan)
        machine.mount_controllers()
        machine.build_underlay(plan)
        for directory in (plan.state_dir / "nats", plan.state_dir / "log"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        plan.state_dir.chmod(0o711)
        stored = json.dumps(asdict(plan.choices), indent=1)
        write_durably(plan.state_dir / "fleet.json", stored.encode())
        write_durably(plan.state_dir / "nats.conf", plan.nats_config().encode())
        compact_if_large(plan)
        path = plan.run_dir / "plan.json"
        if plan.choices.tls and Authority(plan.tls_dir).ensure_server(_server_names(plan)):
            say(f"made a certificate for the api in {plan.tls_dir}")
        write_durably(path, json.dumps([asdict(child) for child in plan.children()]).encode())
        (plan.run_dir / "supervisor.pid").unlink(missing_ok=True)
        say(f"starting {len(plan.children())} processes")
        with (plan.state_dir / "log" / "supervisor.log").open("ab") as log:
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "labfleet_cli.supervisor",
                    str(path),
                    str(plan.state_dir / "log"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        write_durably(digest, _digest(plan).encode())
    return True


def _server_names(plan: FleetPlan) -> list[str]:
    """By what names clients may call the api."""
    address = ipaddress.ip_address(split_listener(plan.choices.tls)[0])
    own = [] if address.is_unspecified else [str(address)]
    return [*own, plan.gateway, *plan.choices.tls_names]


def _check_ports(plan: FleetPlan) -> None:
    """Say early which port of ours is another's. Raises MachineError."""
    base = plan.choices.port_base
    for port in (base + 1, base + 2, base + 10, base + 11, base + 12, base + 13):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as exc:
                raise MachineError(
                    f"port {port} on 127.0.0.1 is in use by another program; "
                    "choose others with --port-base"
                ) from exc


def stop(plan: FleetPlan) -> bool:
    """End the services; containers live on. False if nothing ran."""
    pid = supervisor_pid(plan)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    end_s = time.monotonic() + _END_LIMIT_S
    while Path(f"/proc/{pid}").exists() and supervisor_pid(plan) is not None:
        if time.monotonic() > end_s:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.02)
    (plan.run_dir / "supervisor.pid").unlink(missing_ok=True)
    return True


async def pings(plan: FleetPlan, wait_s: float = 0.4) -> tuple[Pong, ...]:
    """Who answers now; nobody if the bus is down."""
    structlog.configure(processors=[lambda _logger, _name, _event: _drop()])
    try:
        async with (
            asyncio.timeout(_BUS_LIMIT_S + wait_s),
            bus_module.connect(
                plan.nats_url,
                plan.choices.nats_token,
                name="labfleet-cli",
                clock=SystemClock(),
                log=logs.get("cli"),
            ) as bus,
        ):
            return await bus.ping_all(wait_s)
    except TimeoutError:
        return ()


def _drop() -> dict[str, object]:
    raise structlog.DropEvent


def missing(plan: FleetPlan, pongs: tuple[Pong, ...]) -> list[str]:
    """Services that do not answer as ready."""
    there = {(pong.service, pong.host) for pong in pongs if pong.is_ready}
    absent = plan.expected() - there
    return sorted(f"{service}@{host}" if host else service for service, host in absent)


def wait_ready(plan: FleetPlan) -> float:
    """Wait until every service answers; return the seconds it took. Raises MachineError."""
    began_s = time.monotonic()
    absent: list[str] = []
    while time.monotonic() - began_s < _READY_LIMIT_S:
        absent = missing(plan, asyncio.run(pings(plan, 0.15)))
        if not absent:
            return time.monotonic() - began_s
        if supervisor_pid(plan) is None and time.monotonic() - began_s > 5:
            raise MachineError(f"the supervisor ended: see {plan.state_dir}/log/supervisor.log")
    raise MachineError(
        f"not ready after {_READY_LIMIT_S:.0f} s: {', '.join(absent)}; see `labfleet logs NAME`"
    )
