"""Builds of images on this host: `docker build`, by buildah in a user namespace of the tenant's.

A build has the network of a container of its tenant, a cgroup with limits, and files below
`<state>/builder`. What a killed agent leaves of one is taken away when the next one starts.
"""

import asyncio
import shutil

from labfleet_chassis import frames
from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_proto.builds import BuildCache, BuildImage, PruneBuilds, PrunedBuilds, is_build
from labfleet_proto.errors import ConflictError, InvalidRequestError, LabfleetError
from labfleet_proto.ids import TenantId
from labfleet_proto.jobs import Job
from labfleet_runtime_agent.adapters import buildah
from labfleet_runtime_agent.adapters.writable_layer import size_of
from labfleet_runtime_agent.core.build_failures import BuildFailedError
from labfleet_runtime_agent.core.build_output import error_document
from labfleet_runtime_agent.service.admission import Admission
from labfleet_runtime_agent.service.build_context import read_recipe, take_context
from labfleet_runtime_agent.service.build_room import BuildRooms
from labfleet_runtime_agent.service.building import Building, say
from labfleet_runtime_agent.service.tools import Tools

_AT_ONCE = 2
_LIMIT_S = 3600.0


class Builds:
    """Serves builds, two at once; one tenant's follow one another, since they share a cache."""

    def __init__(self, tools: Tools, admission: Admission) -> None:
        self._tools = tools
        self._rooms = BuildRooms(tools, admission)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._locks: dict[TenantId, asyncio.Lock] = {}

    async def recover(self) -> None:
        """Take away what builds of an earlier life left."""
        await self._rooms.recover()

    async def serve(
        self, tenant: TenantId, request: BuildImage, stream: ByteStream, accept: Accept
    ) -> None:
        """Serve one stream: the context comes, docker's lines go."""
        if not is_build(request.build) or self._rooms.is_known(request.build):
            raise InvalidRequestError(f"{request.build} is no new build")
        if not buildah.is_there():
            raise ConflictError(f"host {self._tools.host} has no builder: install buildah")
        await accept({})
        lock = self._locks.setdefault(tenant, asyncio.Lock())
        try:
            async with lock, self._slots, asyncio.timeout(_LIMIT_S):
                await self._build(tenant, request, stream)
        except TimeoutError:
            late = BuildFailedError(f"the build took more than {_LIMIT_S:g} s")
            await say(stream, error_document(late))
        except BuildFailedError as exc:
            await say(stream, error_document(exc))
        except LabfleetError as exc:
            await frames.refuse(stream, exc)  # it may still be sending its context
            return
        await frames.end(stream)

    async def _build(self, tenant: TenantId, request: BuildImage, stream: ByteStream) -> None:
        async with self._rooms.room(tenant, request) as room:
            registry = self._rooms.registry(tenant)
            asked = await take_context(room, registry, request, stream)
            recipe = await asyncio.to_thread(read_recipe, room, asked)
            building = Building(self._tools, tenant, asked, room, registry, stream)
            try:
                async with TaskGroup() as tasks:
                    watch = tasks.create_task(_until_gone(stream))
                    await building.run(recipe)
                    watch.cancel()
            except ExceptionGroup as group:
                raise first_of(group) from None

    # -- cache

    async def cache(self, job: Job, _args: PruneBuilds) -> BuildCache:
        """How large a tenant's cache is here."""
        size = await asyncio.to_thread(size_of, self._rooms.storage(job.tenant))
        return BuildCache(size_bytes=size, is_in_use=self._is_busy(job.tenant))

    async def prune(self, job: Job, _args: PruneBuilds) -> PrunedBuilds:
        """Drop a tenant's cache; one in use stays. Repeating is harmless."""
        lock = self._locks.setdefault(job.tenant, asyncio.Lock())
        if lock.locked():
            return PrunedBuilds(freed_bytes=0)
        async with lock:
            storage = self._rooms.storage(job.tenant)
            size = await asyncio.to_thread(size_of, storage)
            await asyncio.to_thread(shutil.rmtree, storage, ignore_errors=True)
        return PrunedBuilds(freed_bytes=size)

    def _is_busy(self, tenant: TenantId) -> bool:
        lock = self._locks.get(tenant)
        return lock is not None and lock.locked()


async def _until_gone(stream: ByteStream) -> None:
    """Wait until the asker goes away. Raises ConnectionError then."""
    while await stream.read():
        pass
    raise ConnectionAbortedError("the asker went away")
