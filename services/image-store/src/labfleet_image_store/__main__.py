"""Wires the image store."""

import asyncio
import socket

from labfleet_chassis.credentials import Credentials
from labfleet_chassis.data_port import DataPort
from labfleet_chassis.host_blobs import HostBlobs
from labfleet_chassis.service import Chassis, run_service
from labfleet_chassis.tasks import TaskGroup
from labfleet_chassis.web import serve_http
from labfleet_image_store import metrics
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.layers import Layers
from labfleet_image_store.adapters.scrub_memory import ScrubMemory
from labfleet_image_store.adapters.sendfile import SendFileProtocol
from labfleet_image_store.adapters.upstream_client import UpstreamClient
from labfleet_image_store.service import departed
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_image_store.service.collector import Collector
from labfleet_image_store.service.door import Door
from labfleet_image_store.service.events import Events
from labfleet_image_store.service.fetching import Fetcher
from labfleet_image_store.service.healing import Healer
from labfleet_image_store.service.host_source import HostSource
from labfleet_image_store.service.jobs import (
    serve_jobs,
    serve_remote_jobs,
    serve_scrubbing,
    serve_usage,
)
from labfleet_image_store.service.larder import Larder
from labfleet_image_store.service.library import Library
from labfleet_image_store.service.measuring import Measurer
from labfleet_image_store.service.mirror_source import MirrorSource
from labfleet_image_store.service.passing import Passing
from labfleet_image_store.service.pulling import Puller
from labfleet_image_store.service.quotas import Quotas, quotas_in
from labfleet_image_store.service.registry import Registry
from labfleet_image_store.service.remote import Remote
from labfleet_image_store.service.scrubber import Pace, Scrubber
from labfleet_image_store.service.sharing import Sharing
from labfleet_image_store.service.tenant_rules import TenantRules
from labfleet_image_store.service.transfers import Transfers
from labfleet_image_store.service.upstreams import Upstreams
from labfleet_image_store.settings import Settings
from labfleet_proto.buckets import (
    CONTAINERS,
    HOSTS,
    LAYER_COPIES,
    LEASES,
    MANIFESTS,
    SHARED,
    TAGS,
    UPSTREAMS,
)
from labfleet_proto.image_streams import IMAGE_STORE

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


async def sweep(files: BlobFiles, quotas: Quotas) -> None:
    """Drop stale uploads and measure the store, for ever."""
    while True:
        await asyncio.to_thread(files.uploads.sweep)
        count, size = await asyncio.to_thread(files.total)
        metrics.BLOBS.set(count)
        metrics.BLOB_BYTES.set(size)
        quotas.measure()
        await asyncio.sleep(_SWEEP_EVERY_S)


async def opened(
    chassis: Chassis, files: BlobFiles, credentials: Credentials, registry: str
) -> Catalogue:
    """What exists, for whom, and how much of it a tenant may have."""
    stored = await chassis.mirror(MANIFESTS)
    quotas = Quotas(files, stored, quotas_in(credentials.tenants), chassis.clock)
    return Catalogue(
        files,
        await chassis.mirror(TAGS),
        stored,
        chassis.clock,
        frozenset(name.strip() for name in registry.split(",")),
        TenantRules(Sharing(await chassis.mirror(SHARED)), quotas),
    )


async def hosts_of(chassis: Chassis, settings: Settings, files: BlobFiles) -> HostSource:
    """The fleet's hosts, to heal damaged blobs from: nearer than any mirror, so they are asked first."""
    blobs = HostBlobs(
        await chassis.bus.bucket(HOSTS),
        await chassis.bus.bucket(LEASES),
        bytes.fromhex(settings.data_key.get_secret_value()),
        chassis.clock,
        settings.host_silence_s,
    )
    copies = await chassis.bus.bucket(LAYER_COPIES)
    return HostSource(files, copies, blobs, chassis.log)


async def run(chassis: Chassis, settings: Settings) -> None:
    """Run until told to stop."""
    files = BlobFiles(settings.state_dir)
    credentials = await Credentials.open(chassis)
    catalogue = await opened(chassis, files, credentials, settings.registry)
    quotas, is_shared = catalogue.quotas, catalogue.sharing.is_shared
    door = Door(credentials, settings.fleet_secret.get_secret_value(), is_shared)
    chassis.loop("departed", lambda: departed.keep(catalogue, credentials, chassis.log))
    layers = Layers(settings.state_dir, files)
    library = Library(catalogue, layers)
    events = Events(chassis)
    await serve_jobs(chassis, library, events)
    await serve_usage(chassis, quotas, files)
    client = UpstreamClient(chassis.clock)
    upstreams = Upstreams(await chassis.mirror(UPSTREAMS), client, chassis.clock, chassis.log)
    larder = Larder(catalogue, chassis.clock, chassis.log)
    uploads = settings.state_dir / "uploads"
    fetcher = Fetcher(files, uploads, upstreams, chassis.tasks, chassis.log)
    remote = Remote(catalogue, larder, upstreams, fetcher)
    puller = Puller(library, remote, events)
    await serve_remote_jobs(chassis, remote, puller)
    sources = (
        await hosts_of(chassis, settings, files),
        MirrorSource(larder, upstreams, fetcher),
    )
    healer = Healer(catalogue, sources, events, chassis.clock, chassis.log)
    memory = ScrubMemory(settings.state_dir)
    scrubber = Scrubber(files, memory, healer, chassis.clock, chassis.log)
    await serve_scrubbing(chassis, scrubber, healer)
    pace = Pace(settings.scrub_every_s, settings.scrub_bytes_per_s)
    chassis.loop("scrub", lambda: scrubber.run(pace))
    chassis.loop("heal", healer.run)
    chassis.loop("probe", upstreams.probe)
    chassis.loop("larder", lambda: larder.run(settings.fetched_keep_s))
    chassis.loop("sweep", lambda: sweep(files, quotas))
    collector = Collector(
        catalogue, layers, await chassis.bus.bucket(CONTAINERS), chassis.clock, chassis.log
    )
    chassis.loop(
        "collect", lambda: collector.run(settings.collect_every_s, settings.collect_grace_s)
    )
    chassis.loop("measure", Measurer(catalogue, layers, chassis.log).run)
    started = asyncio.Event()
    port = DataPort(
        Transfers(library, puller, uploads, chassis.clock, events).serve,
        host=IMAGE_STORE,
        key=bytes.fromhex(settings.data_key.get_secret_value()),
        clock=chassis.clock,
        log=chassis.log,
    )
    async with port.listening(settings.data_address, settings.data_port), TaskGroup() as tasks:
        tasks.create_task(
            serve_http(
                Registry(files, catalogue, door, Passing(catalogue, remote, healer), chassis.log),
                listeners(settings.listen),
                chassis.stopping,
                started,
                protocol=SendFileProtocol,
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
