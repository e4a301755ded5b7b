"""What the api asks of the image store. Every job is safe to repeat: names and digests are absolute."""

import asyncio

from labfleet_chassis.service import Chassis
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.service.events import Events
from labfleet_image_store.service.healing import Healer
from labfleet_image_store.service.library import Library
from labfleet_image_store.service.pulling import Puller
from labfleet_image_store.service.quotas import Quotas
from labfleet_image_store.service.remote import Remote
from labfleet_image_store.service.scrubber import Scrubber
from labfleet_proto import builds, images, scrubbing, upstreams
from labfleet_proto.ids import OPERATORS
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing


async def serve_remote_jobs(chassis: Chassis, remote: Remote, puller: Puller) -> None:
    """Answer, from now on, what may ask other registries."""

    async def fetch(_job: Job, args: upstreams.FetchImage) -> images.ImageDetail:
        return await puller.fetch(args)

    async def describe(_job: Job, args: upstreams.DescribeRemote) -> upstreams.RemoteDescription:
        return await puller.describe(args)

    async def states(_job: Job, _args: Nothing) -> upstreams.UpstreamStates:
        return upstreams.UpstreamStates(upstreams=remote.upstreams.states())

    await chassis.bus.serve(upstreams.FETCH_IMAGE, fetch)
    await chassis.bus.serve(upstreams.DESCRIBE_REMOTE, describe)
    await chassis.bus.serve(upstreams.UPSTREAM_STATES, states)


async def serve_scrubbing(chassis: Chassis, scrubber: Scrubber, healer: Healer) -> None:
    """Answer, from now on, how the blobs are."""

    async def start(_job: Job, _args: Nothing) -> scrubbing.ScrubState:
        return scrubber.ask()

    async def state(_job: Job, _args: Nothing) -> scrubbing.ScrubState:
        return await scrubber.state()

    async def check(_job: Job, _args: Nothing) -> scrubbing.ImagesCheck:
        return scrubbing.ImagesCheck(findings=await healer.findings())

    await chassis.bus.serve(scrubbing.START_SCRUB, start)
    await chassis.bus.serve(scrubbing.SCRUB_STATE, state)
    await chassis.bus.serve(scrubbing.CHECK_IMAGES, check)


async def serve_usage(chassis: Chassis, quotas: Quotas, files: BlobFiles) -> None:
    """Answer, from now on, how much each tenant has."""

    async def storage(_job: Job, _args: Nothing) -> images.TenantsStorage:
        every = quotas.every()
        referring = await asyncio.to_thread(files.links.repositories)
        owners = {images.owner_of(each) for each in referring} - {OPERATORS, images.FETCHED}
        every |= {owner: quotas.holding(owner) for owner in owners - every.keys()}
        return images.TenantsStorage(
            tenants=tuple(
                images.TenantStorage(
                    tenant=tenant,
                    stored_bytes=holding.stored_bytes,
                    repositories=len(holding.repositories),
                )
                for tenant, holding in sorted(every.items())
            )
        )

    await chassis.bus.serve(images.TENANTS_STORAGE, storage)


async def serve_jobs(chassis: Chassis, library: Library, events: Events) -> None:
    """Answer from now on."""

    async def resolve(_job: Job, args: images.ImageQuery) -> images.ImageDetail:
        return library.detail(args.reference)

    async def every(_job: Job, _args: Nothing) -> images.ImageList:
        return images.ImageList(images=library.summaries(), layers_bytes=library.layers_bytes())

    async def tag(_job: Job, args: images.TagImage) -> Nothing:
        image_id = await library.add_name(args.source, args.target)
        await events.tell("tag", image_id, library.parse(args.target).familiar)
        return Nothing()

    async def remove(_job: Job, args: images.RemoveImage) -> images.ImageRemoved:
        removed = await library.remove(args)
        for name in removed.untagged:
            await events.tell("untag", removed.image_id, name)
        if removed.deleted:
            await events.tell("delete", removed.image_id, removed.image_id)
        return removed

    async def shelve_build(_job: Job, args: builds.ShelveBuild) -> builds.ShelvedBuild:
        shelved = await library.shelve_build(args)
        for name in shelved.names:
            await events.tell("tag", shelved.image_id, name)
        return shelved

    async def drop_build(_job: Job, args: builds.ShelveBuild) -> Nothing:
        await library.drop_build(args)
        return Nothing()

    await chassis.bus.serve(builds.SHELVE_BUILD, shelve_build)
    await chassis.bus.serve(builds.DROP_BUILD, drop_build)
    await chassis.bus.serve(images.RESOLVE_IMAGE, resolve)
    await chassis.bus.serve(images.LIST_IMAGES, every)
    await chassis.bus.serve(images.TAG_IMAGE, tag)
    await chassis.bus.serve(images.REMOVE_IMAGE, remove)
