"""Takes away the images of tenants that are gone."""

import asyncio

from labfleet_chassis.caller import acting_for
from labfleet_chassis.credentials import Credentials
from labfleet_chassis.logs import Log
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_proto.ids import TenantId
from labfleet_proto.images import FETCHED, owner_of

_PASS_EVERY_S = 20.0


async def keep(catalogue: Catalogue, credentials: Credentials, log: Log) -> None:
    """Look every while, for ever. Raises UnavailableError."""
    while True:
        await asyncio.sleep(_PASS_EVERY_S)
        await sweep(catalogue, credentials, log)


async def sweep(catalogue: Catalogue, credentials: Credentials, log: Log) -> None:
    """Compare repositories with tenants once; their blobs stay for the collector.

    References go, too: who takes the name next must not read what its predecessor had.
    """
    for record in list(catalogue.manifests.values()):
        owner = owner_of(record.repository)
        if await _is_gone(owner, credentials):
            with acting_for(owner):
                await catalogue.drop_manifest(record.repository, record.digest)
            log.info("image.left", repository=record.repository, digest=record.digest)
    files = catalogue.files
    for repository in await asyncio.to_thread(files.links.repositories):
        if await _is_gone(owner_of(repository), credentials):
            count = await asyncio.to_thread(files.unlink_all, repository)
            log.info("repository.left", repository=repository, references=count)


async def _is_gone(owner: TenantId, credentials: Credentials) -> bool:
    if owner == FETCHED or credentials.is_known(owner):
        return False
    return await credentials.tenants.bucket.get(owner) is None  # mirrors may be behind
