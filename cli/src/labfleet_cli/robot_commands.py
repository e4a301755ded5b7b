"""`labfleet robot`: credentials for programs that only push and pull, such as a build server."""

from typing import Annotated

import typer

from labfleet_cli.fleet_places import DEFAULT_FLEET
from labfleet_cli.machine import MachineError
from labfleet_cli.memory import with_tenancy
from labfleet_cli.options import FleetName, require_plan
from labfleet_cli.tables import show
from labfleet_cli.tenant_commands import new_token, split, when
from labfleet_proto.errors import LabfleetError
from labfleet_proto.registry_access import RepositoryGrant, checked_actions, checked_pattern

robot_app = typer.Typer(
    no_args_is_help=True,
    help="Robots: tokens for the registry alone, and for some repositories of a tenant.",
)


@robot_app.command("create")
def robot_create(
    tenant: Annotated[str, typer.Option(help="Whose repositories they are; `operators`, too.")],
    repository: Annotated[
        list[str],
        typer.Option(
            help="A name, or a pattern: lab/* is lab/box, lab/** also lab/a/b. Repeatable."
        ),
    ],
    allow: Annotated[str, typer.Option(help="Comma separated: pull, push, delete.")] = "pull",
    expires: Annotated[str, typer.Option(help="Such as 12h or 90d; never if empty.")] = "",
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Make a robot and print its token; it is not shown again.

    `docker login` takes it as the password. It is no good for the Docker API. Who pushes needs pull, too.
    """
    try:
        actions = checked_actions(split(allow))
        grants = tuple(
            RepositoryGrant(pattern=checked_pattern(each), actions=actions) for each in repository
        )
    except LabfleetError as exc:
        raise MachineError(exc.message) from exc
    print(new_token(name, tenant, (), expires, note, grants))


@robot_app.command("ls")
def robot_ls(
    tenant: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """List robots, without their secrets."""
    found = with_tenancy(require_plan(name), lambda tenancy: tenancy.tokens(tenant))
    rows = [
        (
            each.id,
            each.tenant,
            ",".join(grant.pattern for grant in each.repositories),
            ",".join(each.repositories[0].actions),
            when(each.created_at_ns),
            when(each.expires_at_ns),
            each.note,
        )
        for each in found
        if each.repositories
    ]
    show(("ID", "TENANT", "REPOSITORIES", "ALLOW", "CREATED", "EXPIRES", "NOTE"), rows)


@robot_app.command("revoke")
def robot_revoke(
    robot: Annotated[str, typer.Argument(help="Its id, or the token itself.")],
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Revoke a robot's token, and with it every bearer token that was made of it."""
    with_tenancy(require_plan(name), lambda tenancy: tenancy.revoke(robot))
