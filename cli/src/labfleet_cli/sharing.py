"""`labfleet image share`: which of the operators' repositories every tenant may read."""

import time
from typing import Annotated

import typer

from labfleet_chassis.bus import Bus
from labfleet_cli.fleet_places import DEFAULT_FLEET
from labfleet_cli.memory import with_bus
from labfleet_cli.options import FleetName, require_plan
from labfleet_cli.tables import show
from labfleet_proto import buckets
from labfleet_proto.errors import NotFoundError
from labfleet_proto.registry_access import (
    LIBRARY,
    SharedRecord,
    checked_pattern,
    is_pattern,
    is_shared_by,
    shared_patterns,
)

Pattern = Annotated[
    str, typer.Argument(help="A repository of the operators', or a pattern: course/*, course/**.")
]


async def _records(bus: Bus) -> list[SharedRecord]:
    return list((await (await bus.bucket(buckets.SHARED)).values()).values())


async def decide(bus: Bus, text: str, *, is_shared: bool) -> None:
    """Share or no longer share; what the rest of the list says already needs no record.

    Raises InvalidRequestError, NotFoundError (a pattern to be unshared that was never shared).
    """
    pattern = checked_pattern(text)
    bucket = await bus.bucket(buckets.SHARED)
    every = await _records(bus)
    others = [each for each in every if each.pattern != pattern]
    key = buckets.shared_key(pattern)
    if not is_shared and is_pattern(pattern) and pattern != LIBRARY:
        if len(others) == len(every):
            raise NotFoundError(f"{pattern} is not in the list of what is shared")
        await bucket.delete(key)
        return
    if is_shared_by(others, pattern) is is_shared:
        await bucket.delete(key)
        return
    record = SharedRecord(pattern=pattern, is_shared=is_shared, changed_at_ns=time.time_ns())
    await bucket.put(key, record)


def image_share(pattern: Pattern, name: FleetName = DEFAULT_FLEET) -> None:
    """Let every tenant read repositories of the operators'; at once, also those that come later."""
    with_bus(require_plan(name), lambda bus: decide(bus, pattern, is_shared=True))


def image_unshare(pattern: Pattern, name: FleetName = DEFAULT_FLEET) -> None:
    """Keep repositories to the operators; containers that run go on."""
    with_bus(require_plan(name), lambda bus: decide(bus, pattern, is_shared=False))


def image_list_shared(name: FleetName = DEFAULT_FLEET) -> None:
    """List what is shared. `*` stands for all names without a slash, which are unless they are unshared."""
    found = shared_patterns(with_bus(require_plan(name), _records))
    show(
        ("REPOSITORIES", "SHARED"),
        [(each, "yes" if is_shared else "no") for each, is_shared in found],
    )


def add_commands(app: typer.Typer) -> None:
    """Add them to `labfleet image`."""
    app.command("share")(image_share)
    app.command("unshare")(image_unshare)
    app.command("list-shared")(image_list_shared)
