"""`labfleet`: the operator's command line."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from labfleet_cli import bootstrap as images
from labfleet_cli import doctor as diagnosis
from labfleet_cli import fleet, machine
from labfleet_cli.bundle_commands import bundle_app
from labfleet_cli.docker_api import DockerApi
from labfleet_cli.fleet_places import (
    DEFAULT_FLEET,
)
from labfleet_cli.fleet_plan import (
    FleetPlan,
)
from labfleet_cli.fsck import examine
from labfleet_cli.machine import MachineError
from labfleet_cli.memory import everyone
from labfleet_cli.mirror_commands import mirror_app
from labfleet_cli.options import FleetName, require_plan
from labfleet_cli.pre_pull import pre_pull
from labfleet_cli.robot_commands import robot_app
from labfleet_cli.scrub_command import scrub
from labfleet_cli.sharing import add_commands as add_sharing
from labfleet_cli.tenant_commands import tenant_app, token_app
from labfleet_proto.health import Pong

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
image_app = typer.Typer(no_args_is_help=True, help="Images of the fleet's own store.")
image_app.add_typer(bundle_app)
image_app.command("pre-pull")(pre_pull)
app.add_typer(image_app, name="image")
app.add_typer(mirror_app, name="mirror")
app.add_typer(robot_app, name="robot")
add_sharing(image_app)
app.add_typer(tenant_app, name="tenant")
app.add_typer(token_app, name="token")
console = Console(highlight=False)


def _say(text: str) -> None:
    console.print(f"[dim]·[/dim] {text}", markup=True)


@app.command()
def up(
    name: FleetName = DEFAULT_FLEET,
    hosts: Annotated[int | None, typer.Option(help="Number of virtual hosts.")] = None,
    tcp: Annotated[
        str | None, typer.Option(help="Also listen on loopback:port without TLS; needs tokens.")
    ] = None,
    tls: Annotated[
        str | None, typer.Option(help="Also listen on address:port with TLS; needs tokens.")
    ] = None,
    tls_name: Annotated[
        list[str] | None, typer.Option(help="A name or address clients use, repeatable.")
    ] = None,
    score: Annotated[str | None, typer.Option(help="Placement: spread or pack.")] = None,
    port_base: Annotated[int | None, typer.Option(help="First of 50 ports.")] = None,
    underlay: Annotated[int | None, typer.Option(help="N of 10.213.N.0/24.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="host.key=value, repeatable.")] = None,
) -> None:
    """Start the whole fleet on this machine; again it changes nothing."""
    began_s = time.monotonic()
    lacks = [finding for finding in diagnosis.examine() if finding.level == "lack"]
    if lacks:
        raise MachineError(
            "this machine cannot run a fleet:\n"
            + "\n".join(f"  {finding.what} - {finding.todo}" for finding in lacks)
        )
    if score not in (None, "spread", "pack"):
        raise MachineError(f"--score {score}: it is spread or pack")
    wishes = {
        "hosts": hosts,
        "tcp": tcp,
        "tls": tls,
        "tls_names": tuple(tls_name) if tls_name else None,
        "score": score,
        "port_base": port_base,
        "underlay": underlay,
        "labels": tuple(label) if label else None,
    }
    plan = fleet.choose(name, wishes)
    is_new = fleet.start(plan, _say)
    fleet.wait_ready(plan)
    _say("all services are ready" if is_new else "the fleet is up already")
    with DockerApi(plan.socket) as api:
        if not any("busybox:latest" in row["RepoTags"] for row in api.get("/images/json")):
            _say("making the image busybox from this machine's own package")
            images.bootstrap("busybox", plan.registry_url, lambda _text: None)
        if is_new:
            said = api.run("busybox", ["sh", "-c", "echo hello from $(hostname)"]).strip()
            _say(f"a first container says: {said}")
    _next_steps(plan, time.monotonic() - began_s)


def _next_steps(plan: FleetPlan, took_s: float) -> None:
    count = len(plan.hosts)
    word = "host" if count == 1 else "hosts"
    console.print(f"\n[bold]{plan.name}[/bold] is up with {count} {word} ({took_s:.1f} s). Now:\n")
    console.print(f"  export DOCKER_HOST=unix://{plan.socket}")
    console.print("  docker run -it --rm busybox")
    console.print("  docker ps\n")
    own = Path(sys.argv[0])
    option = "" if plan.name == DEFAULT_FLEET else f" --fleet {plan.name}"
    if plan.choices.tls:
        console.print(f"  {own} tenant create NAME{option}            who may come over TLS")
        console.print(f"  {own} tenant cert NAME --out DIR{option}    with DOCKER_CERT_PATH=DIR")
    console.print(f"  {own} status{option}    services, hosts, containers")
    console.print(f"  {own} fsck{option}      checks every invariant")
    console.print("  make down            stops the services; containers live on")


@app.command()
def down(
    name: FleetName = DEFAULT_FLEET,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove containers, images and all state too.")
    ] = False,
) -> None:
    """Stop the services; containers live on unless --all is given."""
    plan = fleet.load(name)
    if plan is None:
        if not everything:
            _say(f"there is no fleet {name} on this machine")
            return
        plan = fleet.choose(name, {})
    if everything and fleet.supervisor_pid(plan) is not None:
        try:
            for tenant in everyone(plan):
                with DockerApi(plan.socket, tenant) as api:
                    _say(f"removed {api.remove_everything()} containers of {tenant}")
        except (httpx.HTTPError, MachineError) as exc:
            _say(f"the api did not help ({exc}); going on without it")
    _say("services stopped" if fleet.stop(plan) else "no service was running")
    if everything:
        problems = machine.sweep(plan)
        for problem in problems:
            console.print(f"[red]{problem}[/red]")
        if problems:
            raise typer.Exit(1)
        _say("nothing is left")


@app.command()
def status(name: FleetName = DEFAULT_FLEET) -> None:
    """Show services, hosts and containers."""
    plan = require_plan(name)
    pongs: dict[tuple[str, str | None], Pong] = {
        (pong.service, pong.host): pong for pong in asyncio.run(fleet.pings(plan))
    }
    services = Table(title="services", title_justify="left", box=None)
    for title in ("SERVICE", "HOST", "STATE", "PID", "RESTARTS", "METRICS"):
        services.add_column(title)
    restarts = _restarts(plan)
    for service, host in sorted(plan.expected(), key=lambda pair: (pair[1] or "", pair[0])):
        pong = pongs.get((service, host))
        state = "[red]no answer[/red]" if pong is None else "ready" if pong.is_ready else "starting"
        where = next((each.address for each in plan.hosts if each.id == host), "127.0.0.1")
        services.add_row(
            service,
            host or "-",
            state,
            str(pong.pid) if pong else "-",
            str(restarts.get(f"{service}-{host}" if host else service, 0)),
            f"http://{where}:{pong.metrics_port}/metrics" if pong else "-",
        )
    console.print(services)
    if ("api", None) in pongs:
        _show_contents(plan)
    absent = fleet.missing(plan, tuple(pongs.values()))
    if absent:
        console.print(f"\n[red]not ready: {', '.join(absent)}[/red]")
        raise typer.Exit(1)


def _restarts(plan: FleetPlan) -> dict[str, int]:
    try:
        rows = json.loads((plan.run_dir / "services.json").read_text())
    except (OSError, ValueError):
        return {}
    return {row["name"]: row["restarts"] for row in rows}


def _show_contents(plan: FleetPlan) -> None:
    with DockerApi(plan.socket) as api:
        info = api.get("/info")
    console.print("\nhosts")
    for key, value in info["DriverStatus"][1:]:
        console.print(f" {key.strip():10} {value}")
    console.print("\ncontainers")
    count = 0
    for tenant in everyone(plan):
        with DockerApi(plan.socket, tenant) as api:
            rows = api.get("/containers/json", all="1")
        count += len(rows)
        for row in rows:
            host = row["Labels"].get("labfleet.host", "")
            console.print(
                f" {row['Id'][:12]}  {tenant:12} {row['Names'][0][1:]:24} {host:8} {row['Image']:20} "
                f"{row['Status']}",
                soft_wrap=True,
            )
    if not count:
        console.print(" none")


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="A service, such as api or network-host1.")],
    name: FleetName = DEFAULT_FLEET,
    follow: Annotated[bool, typer.Option("-f", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", help="Number of last lines.")] = 100,
) -> None:
    """Show what a service has logged."""
    plan = require_plan(name)
    folder = plan.state_dir / "log"
    known = sorted(path.stem for path in folder.glob("*.log"))
    found = [each for each in known if each == service or each.startswith(f"{service}-")]
    if not found:
        raise MachineError(f"no service {service}: there are {', '.join(known)}")
    words = ["tail", "-q", "-n", str(lines)] + (["-F"] if follow else [])
    files = [str(folder / f"{each}.log") for each in found]
    done = subprocess.run([*words, *files], check=False)  # noqa: TID251
    raise typer.Exit(done.returncode)


@app.command()
def doctor() -> None:
    """Say what this machine lacks and what to do."""
    findings = diagnosis.examine()
    marks = {
        "ok": "[green]ok[/green]  ",
        "hint": "[yellow]hint[/yellow]",
        "lack": "[red]lack[/red]",
    }
    for finding in findings:
        console.print(f"{marks[finding.level]} {finding.what}")
        if finding.todo:
            console.print(f"       → {finding.todo}")
    if any(finding.level == "lack" for finding in findings):
        raise typer.Exit(1)


@app.command()
def fsck(name: FleetName = DEFAULT_FLEET) -> None:
    """Check the invariants of a running fleet and name every leak."""
    findings = asyncio.run(examine(require_plan(name)))
    for finding in findings:
        console.print(f"[red]·[/red] {finding}")
    if findings:
        raise typer.Exit(1)
    console.print("[green]clean[/green]: every invariant holds, nothing leaks")


@image_app.command("bootstrap")
def image_bootstrap(
    distribution: Annotated[str, typer.Argument(help="busybox or debian")],
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Make a base image from Debian's own packages and push it to the fleet's store."""
    plan = require_plan(name)
    for known in images.DISTRIBUTIONS:
        if known == distribution:
            images.bootstrap(known, plan.registry_url, _say)
            return
    raise MachineError(f"{distribution}: known are {', '.join(images.DISTRIBUTIONS)}")


@image_app.command("scrub")
def image_scrub(name: FleetName = DEFAULT_FLEET) -> None:
    """Read every blob of the store now, and say which are damaged and which are healed."""
    raise typer.Exit(scrub(require_plan(name), print))


def main() -> None:
    """Entry point of `labfleet`."""
    try:
        app()
    except MachineError as exc:
        console.print(f"[red]labfleet:[/red] {exc}")
        sys.exit(1)
    except (httpx.HTTPError, images.BootstrapError) as exc:
        console.print(f"[red]labfleet:[/red] {exc}")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
