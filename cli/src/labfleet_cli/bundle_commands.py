"""`labfleet image export`, `import`, `sign-key` and `trust`: images for a campus without Internet."""

from pathlib import Path
from typing import Annotated

import typer

from labfleet_cli.bundle_keys import BundleKeys
from labfleet_cli.bundles import export_images, import_images
from labfleet_cli.fleet_places import DEFAULT_FLEET
from labfleet_cli.fleet_plan import FleetPlan
from labfleet_cli.machine import MachineError
from labfleet_cli.options import FleetName, require_plan
from labfleet_cli.registry_client import RegistryClient
from labfleet_cli.tables import show

bundle_app = typer.Typer()
trust_app = typer.Typer(
    no_args_is_help=True, help="Public keys of fleets whose bundles `import` takes."
)
bundle_app.add_typer(trust_app, name="trust")


def _keys(plan: FleetPlan) -> BundleKeys:
    return BundleKeys(plan.state_dir / "bundle-keys")


@bundle_app.command("export")
def image_export(
    images: Annotated[list[str], typer.Argument(help="NAME[:TAG], repeatable.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write.")],
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Leave the signature out.")] = False,
    fleet: FleetName = DEFAULT_FLEET,
) -> None:
    """Write images of the store into one file, an OCI layout that this fleet signs."""
    plan = require_plan(fleet)
    with RegistryClient(plan.registry_url) as registry:
        export_images(registry, images, output, None if unsigned else _keys(plan), print)


@bundle_app.command("import")
def image_import(
    file: Annotated[Path, typer.Argument(help="A bundle of `labfleet image export`.")],
    allow_unsigned: Annotated[
        bool,
        typer.Option("--allow-unsigned", help="Take what nobody signed whom this fleet trusts."),
    ] = False,
    fleet: FleetName = DEFAULT_FLEET,
) -> None:
    """Take the images of a bundle into the store; all of it is checked first."""
    plan = require_plan(fleet)
    with RegistryClient(plan.registry_url) as registry:
        import_images(registry, file, _keys(plan), print, allow_unsigned=allow_unsigned)


@bundle_app.command("sign-key")
def image_sign_key(
    out: Annotated[Path | None, typer.Option(help="Write it to a file.")] = None,
    fleet: FleetName = DEFAULT_FLEET,
) -> None:
    """Show the public key with which this fleet signs, to be given to those who import."""
    key = _keys(require_plan(fleet)).own()
    if out is None:
        print(key.pem.decode(), end="")
        return
    try:
        out.write_bytes(key.pem)
    except OSError as exc:
        raise MachineError(f"{out}: {exc.strerror}") from exc
    print(key.fingerprint)


@trust_app.command("add")
def trust_add(
    file: Annotated[Path, typer.Argument(help="A public key of `labfleet image sign-key`.")],
    name: Annotated[str, typer.Option(help="By default the file's name.")] = "",
    fleet: FleetName = DEFAULT_FLEET,
) -> None:
    """Take bundles that this key has signed."""
    key = _keys(require_plan(fleet)).add(file, name)
    print(f"{key.name} {key.fingerprint}")


@trust_app.command("ls")
def trust_ls(fleet: FleetName = DEFAULT_FLEET) -> None:
    """List the keys that bundles may be signed with; the fleet's own comes first."""
    rows = [(key.name, key.fingerprint) for key in _keys(require_plan(fleet)).believed()]
    show(("NAME", "FINGERPRINT"), rows)


@trust_app.command("rm")
def trust_rm(
    name: Annotated[str, typer.Argument()],
    fleet: FleetName = DEFAULT_FLEET,
) -> None:
    """Trust a key no more."""
    _keys(require_plan(fleet)).remove(name)
