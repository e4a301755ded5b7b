"""Takes away the images of tenants that are gone."""

import asyncio

from labfleet_chassis.caller import acting_for
from labfleet_chassis.credentials import Credentials
from labfleet_chassis.logs import Log
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_proto.images import FETCHED, owner_of

_PASS_EVERY_S = 20.0


async def keep(catalogue: Catalogue, credentials: Credentials, log: Log) -> None:
    """Look every while, for ever. Raises UnavailableError."""
    while True:
        await asyncio.sleep(_PASS_EVERY_S)
        await sweep(catalogue, credentials, log)


async def sweep(catalogue: Catalogue, credentials: Credentials, log: Log) -> None:
    """Compare repositories with tenants once; their blobs stay for the collector."""
    for record in list(catalogue.manifests.values()):
        owner = owner_of(record.repository)
        if owner == FETCHED:
            continue
        if credentials.is_known(owner) or await credentials.tenants.bucket.get(owner) is not None:
            continue
        with acting_for(owner):
            await catalogue.drop_manifest(record.repository, record.digest)
        log.info("image.left", repository=record.repository, digest=record.digest)
