"""`labfleet tenant` and `labfleet token`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from labfleet_cli.authority import Authority
from labfleet_cli.docker_api import DockerApi
from labfleet_cli.fleet_places import (
    DEFAULT_FLEET,
)
from labfleet_cli.machine import MachineError
from labfleet_cli.memory import with_tenancy
from labfleet_cli.options import FleetName, require_plan
from labfleet_cli.tables import show
from labfleet_cli.tenancy import Tenancy, byte_count, duration
from labfleet_proto.errors import LabfleetError
from labfleet_proto.ids import TenantId
from labfleet_proto.registry_access import RepositoryGrant
from labfleet_proto.tenants import CertificateRecord, TokenRecord

tenant_app = typer.Typer(no_args_is_help=True, help="Tenants: owners of containers.")
token_app = typer.Typer(no_args_is_help=True, help="Tokens: what a tenant's clients send.")

_CERTIFICATE_LIFE = "397d"

Scopes = Annotated[
    str,
    typer.Option(
        help="Comma separated: read, run, exec, images; of the operators also admin. All if empty."
    ),
]


def split(scopes: str) -> tuple[str, ...]:
    """Words of a list with commas."""
    return tuple(word.strip() for word in scopes.split(",") if word.strip())


def when(time_ns: int) -> str:
    """A time for people."""
    if not time_ns:
        return "never"
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")


Storage = Annotated[
    str | None,
    typer.Option(help="Of the blobs that its images need, each once: 500MB, 20GB, none."),
]
Repositories = Annotated[int | None, typer.Option(min=0, help="With images; 0 is no quota.")]


@tenant_app.command("create")
def tenant_create(
    tenant: Annotated[str, typer.Argument(help="[a-z0-9-], at most 39 characters.")],
    storage: Storage = None,
    repositories: Repositories = None,
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Make a tenant; it has nothing yet, and nobody can act for it without a token."""
    most = _sized(storage) or 0
    made = with_tenancy(
        require_plan(name), lambda tenancy: tenancy.create(tenant, most, repositories or 0)
    )
    print(made.id)


@tenant_app.command("quota")
def tenant_quota(
    tenant: Annotated[str, typer.Argument()],
    storage: Storage = None,
    repositories: Repositories = None,
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Change how much a tenant may keep in the image store; what it has stays."""
    most = _sized(storage)
    if most is None and repositories is None:
        raise MachineError("which quota? --storage 20GB, --repositories 50, or both")
    with_tenancy(require_plan(name), lambda tenancy: tenancy.limit(tenant, most, repositories))


@tenant_app.command("ls")
def tenant_ls(name: FleetName = DEFAULT_FLEET) -> None:
    """List the tenants, with what they have and their quotas."""

    async def rows(tenancy: Tenancy) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        storage = await tenancy.storage()
        for each in await tenancy.every():
            owned = await tenancy.owned(each.id)
            tokens = await tenancy.tokens(each.id)
            state = "leaving" if each.is_leaving else "active"
            counts = (str(owned["containers"]), str(owned["volumes"]), str(len(tokens)))
            stored = storage.get(each.id)
            kept = (
                _of(
                    _size(stored.stored_bytes if stored else 0),
                    _size(each.most_stored_bytes) if each.most_stored_bytes else "-",
                ),
                _of(str(stored.repositories if stored else 0), str(each.most_repositories or "-")),
            )
            found.append((each.id, state, *counts, *kept, when(each.created_at_ns)))
        return found

    show(
        ("TENANT", "STATE", "CONTAINERS", "VOLUMES", "TOKENS", "STORED", "REPOSITORIES", "CREATED"),
        with_tenancy(require_plan(name), rows),
    )


def _of(have: str, most: str) -> str:
    return f"{have}/{most}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f}MB"


@tenant_app.command("rm")
def tenant_rm(
    tenant: Annotated[str, typer.Argument()],
    force: Annotated[
        bool, typer.Option("--force", help="Remove its containers, volumes and networks too.")
    ] = False,
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Remove a tenant and its credentials; what it owns must be gone, or goes with --force.

    Safe to repeat after a failure. Its networks and images go by themselves within a minute.
    """
    plan = require_plan(name)
    owned = with_tenancy(plan, lambda tenancy: tenancy.owned(TenantId(tenant)))
    if any(owned.values()) and not force:
        raise MachineError(
            f"tenant {tenant} has {owned['containers']} containers and {owned['volumes']} volumes: "
            "remove them first, or use --force"
        )
    closed = with_tenancy(plan, lambda tenancy: tenancy.close(tenant))
    if any(owned.values()):
        with DockerApi(plan.socket, closed) as api:
            api.remove_everything()
    with_tenancy(plan, lambda tenancy: tenancy.forget(closed))
    print(closed)


@tenant_app.command("cert")
def tenant_cert(
    tenant: Annotated[str, typer.Argument()],
    out: Annotated[Path, typer.Option(help="Directory for ca.pem, cert.pem and key.pem.")],
    scopes: Scopes = "",
    expires: Annotated[str, typer.Option(help="Such as 90d.")] = _CERTIFICATE_LIFE,
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Issue a client certificate: `DOCKER_CERT_PATH=OUT DOCKER_TLS_VERIFY=1 docker ...`."""
    plan = require_plan(name)
    authority = Authority(plan.tls_dir)
    life = parsed(expires)
    record = with_tenancy(
        plan, lambda tenancy: tenancy.certify(authority, tenant, split(scopes), life, out)
    )
    print(record.fingerprint)


@tenant_app.command("certs")
def tenant_certs(
    tenant: Annotated[str | None, typer.Argument()] = None, name: FleetName = DEFAULT_FLEET
) -> None:
    """List client certificates."""
    found = with_tenancy(require_plan(name), lambda tenancy: tenancy.certificates(tenant))
    show(
        ("FINGERPRINT", "TENANT", "SCOPES", "CREATED", "EXPIRES"),
        [(each.fingerprint[:16], *_columns(each)) for each in found],
    )


@tenant_app.command("uncert")
def tenant_uncert(
    fingerprint: Annotated[str, typer.Argument(help="Or the beginning of one.")],
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Revoke a client certificate."""
    with_tenancy(require_plan(name), lambda tenancy: tenancy.distrust(fingerprint))


@token_app.command("create")
def token_create(
    tenant: Annotated[str, typer.Option(help="Whose token it is; `operators` is one, too.")],
    scopes: Scopes = "",
    expires: Annotated[str, typer.Option(help="Such as 12h or 30d; never if empty.")] = "",
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Make a token and print it; it is not shown again."""
    print(new_token(name, tenant, split(scopes), expires, note))


@token_app.command("ls")
def token_ls(
    tenant: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """List tokens, without their secrets."""
    found = with_tenancy(require_plan(name), lambda tenancy: tenancy.tokens(tenant))
    show(
        ("ID", "TENANT", "SCOPES", "CREATED", "EXPIRES", "NOTE"),
        [(each.id, *_columns(each), each.note) for each in found],
    )


@token_app.command("revoke")
def token_revoke(
    token: Annotated[str, typer.Argument(help="Its id, or the token itself.")],
    name: FleetName = DEFAULT_FLEET,
) -> None:
    """Revoke a token: the next request with it is refused."""
    with_tenancy(require_plan(name), lambda tenancy: tenancy.revoke(token))


def _sized(text: str | None) -> int | None:
    try:
        return byte_count(text) if text is not None else None
    except LabfleetError as exc:
        raise MachineError(exc.message) from exc


def new_token(
    fleet: str,
    tenant: str,
    scopes: tuple[str, ...],
    expires: str,
    note: str,
    grants: tuple[RepositoryGrant, ...] = (),
) -> str:
    """Make a token, a robot's with `grants`; return its text. Raises MachineError."""
    life = parsed(expires) if expires else None
    _, text = with_tenancy(
        require_plan(fleet),
        lambda tenancy: tenancy.create_token(tenant, scopes, life, note, grants),
    )
    return text


def parsed(text: str) -> timedelta:
    """A duration. Raises MachineError."""
    try:
        return duration(text)
    except LabfleetError as exc:
        raise MachineError(exc.message) from exc


def _columns(record: TokenRecord | CertificateRecord) -> tuple[str, ...]:
    created, expires = when(record.created_at_ns), when(record.expires_at_ns)
    is_robot = isinstance(record, TokenRecord) and record.repositories
    return record.tenant, "robot" if is_robot else ",".join(record.scopes), created, expires
