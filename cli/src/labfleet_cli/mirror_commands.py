"""`labfleet mirror`: the registries from which the fleet fetches images."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from labfleet_cli.fleet_places import (
    DEFAULT_FLEET,
)
from labfleet_cli.machine import MachineError
from labfleet_cli.memory import with_bus
from labfleet_cli.mirrors import Mirrors, MirrorWish
from labfleet_cli.options import FleetName, require_plan
from labfleet_cli.tables import show
from labfleet_cli.tenancy import duration
from labfleet_proto.errors import LabfleetError
from labfleet_proto.upstreams import HUB, UpstreamState

mirror_app = typer.Typer(
    no_args_is_help=True, help="Mirrors: registries from which the fleet fetches images."
)


@mirror_app.command("add")
def mirror_add(
    url: Annotated[str, typer.Argument(help="http://HOST[:PORT] or https://HOST[:PORT].")],
    name: Annotated[str, typer.Option(help="By default made from the host.")] = "",
    registry: Annotated[
        str, typer.Option("--for", help="Whose names it serves, such as quay.io.")
    ] = HUB,
    user: Annotated[str, typer.Option(help="Who logs in there.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from stdin.")
    ] = False,
    ca: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) to trust instead of the machine's.")
    ] = None,
    expiry: Annotated[
        str, typer.Option(help="For so long a tag is not asked for again: 30s, 5m, 12h.")
    ] = "5m",
    first: Annotated[bool, typer.Option("--first", help="Ask it before the others.")] = False,
    fleet: FleetName = DEFAULT_FLEET,
) -> None:
    """Add a registry to fetch from; those for the same names are asked in their order.

    It opens the names of `--for`, and those that begin with its own host, to all tenants.
    """
    if bool(user) != password_stdin:
        raise MachineError("--user and --password-stdin go together")
    try:
        wish = MirrorWish(
            url=url,
            name=name,
            registry=registry,
            username=user,
            password=sys.stdin.readline().rstrip("\r\n") if password_stdin else "",
            ca_pem=ca.read_text() if ca is not None else "",
            expiry=duration(expiry),
            is_first=first,
        )
    except LabfleetError as exc:
        raise MachineError(exc.message) from exc
    except OSError as exc:
        raise MachineError(f"--ca {ca}: {exc.strerror}") from exc
    print(with_bus(require_plan(fleet), lambda bus: Mirrors(bus).add(wish)).name)


@mirror_app.command("ls")
def mirror_ls(fleet: FleetName = DEFAULT_FLEET) -> None:
    """List the mirrors in the order in which they are asked, and how they do."""
    plan = require_plan(fleet)
    records = with_bus(plan, lambda bus: Mirrors(bus).every())
    states = with_bus(plan, lambda bus: Mirrors(bus).states())
    rows = [
        (
            each.name,
            each.registry,
            each.url,
            each.username or "-",
            f"{each.expiry_s}s",
            *_state(states.get(each.name)),
        )
        for each in records
    ]
    show(("NAME", "FOR", "URL", "USER", "EXPIRY", "FETCHED", "STATE"), rows)


def _state(state: UpstreamState | None) -> tuple[str, str]:
    if state is None:
        return "-", "unknown"
    return f"{state.fetched_bytes / 1e6:.1f}MB", "up" if state.is_up else f"down: {state.word}"


@mirror_app.command("rm")
def mirror_rm(
    name: Annotated[str, typer.Argument()],
    fleet: FleetName = DEFAULT_FLEET,
) -> None:
    """Fetch nothing from a mirror any more; what is there stays."""
    with_bus(require_plan(fleet), lambda bus: Mirrors(bus).remove(name))
