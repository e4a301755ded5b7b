"""Wires the image store."""

import asyncio
import socket

from labfleet_chassis.credentials import Credentials
from labfleet_chassis.service import Chassis, run_service
from labfleet_chassis.tasks import TaskGroup
from labfleet_chassis.web import serve_http
from labfleet_image_store import metrics
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.service import departed
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_image_store.service.door import Door
from labfleet_image_store.service.registry import Registry
from labfleet_image_store.settings import Settings
from labfleet_proto import images
from labfleet_proto.buckets import MANIFESTS, TAGS
from labfleet_proto.events import FleetEvent
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing

_SWEEP_EVERY_S = 60.0


def listeners(addresses: str) -> list[socket.socket]:
    """Bind every `host:port` of the list. Raises OSError."""
    found = []
    for address in addresses.split(","):
        host, _, port = address.strip().rpartition(":")
        listener = socket.create_server((host, int(port)), backlog=512)
        listener.setblocking(False)
        found.append(listener)
    return found


async def serve_jobs(chassis: Chassis, catalogue: Catalogue) -> None:
    """Answer what the api asks. Every job is safe to repeat: names and digests are absolute."""

    async def tell(job: Job, action: str, name: str) -> None:
        await chassis.bus.emit(
            FleetEvent(
                tenant=job.tenant,
                type="image",
                action=action,
                id=name,
                attributes={"name": name},
                time_ns=chassis.clock.now_ns(),
            )
        )

    async def resolve(_job: Job, args: images.ImageQuery) -> images.ImageDetail:
        return catalogue.detail(args.reference)

    async def every(_job: Job, _args: Nothing) -> images.ImageList:
        return images.ImageList(images=catalogue.summaries())

    async def tag(job: Job, args: images.TagImage) -> Nothing:
        await catalogue.add_name(args.source, args.target)
        await tell(job, "tag", args.target)
        return Nothing()

    async def remove(job: Job, args: images.RemoveImage) -> images.ImageRemoved:
        removed = await catalogue.remove(args.reference, force=args.force)
        for name in removed.untagged:
            await tell(job, "untag", name)
        for name in removed.deleted:
            await tell(job, "delete", name)
        return removed

    await chassis.bus.serve(images.RESOLVE_IMAGE, resolve)
    await chassis.bus.serve(images.LIST_IMAGES, every)
    await chassis.bus.serve(images.TAG_IMAGE, tag)
    await chassis.bus.serve(images.REMOVE_IMAGE, remove)


async def sweep(files: BlobFiles) -> None:
    """Drop stale uploads and measure the store, for ever."""
    while True:
        await asyncio.to_thread(files.sweep)
        count, size = await asyncio.to_thread(files.total)
        metrics.BLOBS.set(count)
        metrics.BLOB_BYTES.set(size)
        await asyncio.sleep(_SWEEP_EVERY_S)


async def run(chassis: Chassis, settings: Settings) -> None:
    """Run until told to stop."""
    files = BlobFiles(settings.state_dir)
    domains = frozenset(name.strip() for name in settings.registry.split(","))
    catalogue = Catalogue(
        files, await chassis.mirror(TAGS), await chassis.mirror(MANIFESTS), chassis.clock, domains
    )
    credentials = await Credentials.open(chassis)
    door = Door(credentials, settings.fleet_secret.get_secret_value())
    await serve_jobs(chassis, catalogue)
    chassis.loop("sweep", lambda: sweep(files))
    chassis.loop("departed", lambda: departed.keep(catalogue, credentials, chassis.log))
    started = asyncio.Event()
    async with TaskGroup() as tasks:
        tasks.create_task(
            serve_http(
                Registry(files, catalogue, door, chassis.log),
                listeners(settings.listen),
                chassis.stopping,
                started,
            )
        )
        await started.wait()
        chassis.ready(settings.listen)


def main() -> None:
    """Entry point of `labfleet-image-store`."""
    settings = Settings()
    run_service("image-store", settings, lambda chassis: run(chassis, settings))


if __name__ == "__main__":
    main()
