"""Builds of images on this host: `docker build`, by buildah in a user namespace of the tenant's.

A build has the network of a container of its tenant, a cgroup with limits, and files below
`<state>/builder`. What a killed agent leaves of one is taken away when the next one starts.
"""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

from labfleet_chassis import frames
from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.builds import (
    BUILD_REPOSITORY,
    DROP_BUILD,
    SHELVE_BUILD,
    BuildCache,
    BuildImage,
    PruneBuilds,
    PrunedBuilds,
    ShelveBuild,
    build_tag,
    is_build,
)
from labfleet_proto.errors import (
    ConflictError,
    InternalError,
    InvalidRequestError,
    LabfleetError,
    NotFoundError,
    UnavailableError,
)
from labfleet_proto.ids import ContainerId, TenantId
from labfleet_proto.images import ImageDetail, familiar_repository
from labfleet_proto.jobs import Job
from labfleet_proto.networks import (
    ALLOCATE_INTERFACE,
    RELEASE_INTERFACE,
    AllocateInterface,
    InterfaceReady,
    ReleaseInterface,
)
from labfleet_proto.tenants import visitor_pass
from labfleet_proto.upstreams import FETCH_IMAGE, FetchImage
from labfleet_runtime_agent.adapters import buildah, kernel
from labfleet_runtime_agent.adapters.buildah import Registry, Room
from labfleet_runtime_agent.adapters.writable_layer import size_of
from labfleet_runtime_agent.core.build_output import BuildFailedError, Translator, error_document
from labfleet_runtime_agent.core.build_words import bud_words
from labfleet_runtime_agent.core.dockerfile import Recipe
from labfleet_runtime_agent.service.build_context import read_recipe, take_context
from labfleet_runtime_agent.service.readiness import owner
from labfleet_runtime_agent.service.tools import Tools

_AT_ONCE = 2
_LIMIT_S = 3600.0
_PASS_LIFE_NS = 2 * 3600 * 10**9
"""Of the builder's login: longer than a build."""
_NETWORK_LIMIT_S = 20.0
_SETTLE_LIMIT_S = 600.0
_ATTEMPT = 1
_KEPT_FREE_BYTES = 2 << 30


class _GoneError(Exception):
    """The client went away."""


class Builds:
    """Serves builds, two at once; one tenant's follow one another, since they share a cache."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._home = tools.settings.state_dir / "builder"
        self._work = self._home / "work"
        for path in (self._home, self._work):
            path.mkdir(exist_ok=True)
            path.chmod(0o711)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._locks: dict[TenantId, asyncio.Lock] = {}
        for path in self._home.glob("*/slot"):
            tools.files.slots.restore(_holder(TenantId(path.parent.name)), int(path.read_text()))

    # -- leftovers

    async def recover(self) -> None:
        """Take away what builds of an earlier life left: they died with it."""
        for path in list(self._work.iterdir()):
            tenant = TenantId((path / "tenant").read_text() if (path / "tenant").exists() else "")
            await self._clear(ContainerId(path.name), tenant)
            if tenant:
                with contextlib.suppress(LabfleetError):
                    await self._tools.bus.call(
                        DROP_BUILD,
                        ShelveBuild(build=ContainerId(path.name)),
                        tenant=tenant,
                        subject=path.name,
                    )

    async def _clear(self, build: ContainerId, tenant: TenantId) -> None:
        tools = self._tools
        try:
            if tenant:
                await tools.bus.call(
                    RELEASE_INTERFACE,
                    ReleaseInterface(container=build, attempt=_ATTEMPT),
                    tenant=tenant,
                    subject=build,
                    host=tools.host,
                )
            await asyncio.to_thread(tools.cgroups.remove, build)
        except (UnavailableError, InternalError) as exc:
            tools.log.warning("build.left", build=build, error=exc.message)
            return  # the next start tries again
        await asyncio.to_thread(shutil.rmtree, self._work / build, ignore_errors=True)

    # -- one build

    async def serve(
        self, tenant: TenantId, request: BuildImage, stream: ByteStream, accept: Accept
    ) -> None:
        """Serve one stream: the context comes, docker's lines go."""
        if not is_build(request.build) or (self._work / request.build).exists():
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
            await _line(stream, error_document(late))
        except BuildFailedError as exc:
            await _line(stream, error_document(exc))
        except LabfleetError as exc:
            await frames.end(stream, exc)
            return
        await frames.end(stream)

    async def _build(self, tenant: TenantId, request: BuildImage, stream: ByteStream) -> None:
        async with self._room(tenant, request) as room:
            await take_context(room, stream)
            recipe = await asyncio.to_thread(read_recipe, room, request)
            bases = [await self._resolve(tenant, name, recipe, stream) for name in recipe.images]
            try:
                async with TaskGroup() as tasks:
                    watch = tasks.create_task(_until_gone(stream))
                    await self._run(tenant, request, room, recipe, bases, stream)
                    watch.cancel()
            except ExceptionGroup as group:
                raise _first(group) from None

    async def _run(
        self,
        tenant: TenantId,
        request: BuildImage,
        room: Room,
        recipe: Recipe,
        bases: list[tuple[str, ImageDetail]],
        stream: ByteStream,
    ) -> None:
        registry = self._registry(tenant)
        ids = {name: image.pin.image_id.removeprefix("sha256:") for name, image in bases}
        await asyncio.to_thread(room.recipe.write_text, recipe.rewritten(ids))
        pulls = [_pull_of(image) for _, image in bases]
        outside = _outside(room)
        await self._quietly(outside, buildah.pull_script(pulls), registry, "fetch base images")
        translator = Translator(recipe.steps, 1 if request.labels else 0)
        script = buildah.words(
            *bud_words(
                request, str(room.context), str(room.recipe), str(room.ignored), str(room.id_file)
            )
        )
        child = await buildah.start(
            room, script, registry, runtime=self._tools.settings.runtime, with_login=False
        )
        try:
            async with TaskGroup() as tasks:
                for reader, said in (
                    (child.stdout, translator.said),
                    (child.stderr, translator.complained),
                ):
                    tasks.create_task(
                        self._pass_on(reader, said, stream, is_quiet=request.is_quiet)
                    )
            code = await child.wait()
        finally:
            await _end(child)
        if code != 0:
            raise translator.failure(code)
        image = room.id_file.read_text().strip().removeprefix("sha256:")
        target = f"docker://{registry.location}/{BUILD_REPOSITORY}:{build_tag(request.build)}"
        push = buildah.words("buildah", "push", "-q", image, target)
        await self._quietly(outside, push, registry, "push the image")
        shelved = await self._tools.bus.call(
            SHELVE_BUILD,
            ShelveBuild(build=request.build, names=request.names),
            tenant=tenant,
            subject=request.build,
        )
        if request.is_quiet:
            await _line(stream, {"stream": f"{shelved.image_id}\n"})
            return
        await _line(stream, {"aux": {"ID": shelved.image_id}})
        await _line(stream, {"stream": f"Successfully built {shelved.image_id[7:19]}\n"})
        for name in shelved.names:
            await _line(stream, {"stream": f"Successfully tagged {name}\n"})

    async def _pass_on(
        self, reader: asyncio.StreamReader | None, said: Any, stream: ByteStream, *, is_quiet: bool
    ) -> None:
        async for text in buildah.lines(reader):
            for document in said(text):
                if not is_quiet:
                    await _line(stream, document)

    async def _quietly(self, room: Room, script: str, registry: Registry, what: str) -> None:
        """Run builder's commands that talk to the image store. Raises BuildFailedError."""
        child = await buildah.start(
            room, script, registry, runtime=self._tools.settings.runtime, with_login=True
        )
        try:
            async with asyncio.timeout(_SETTLE_LIMIT_S):
                _, errors = await child.communicate()
        finally:
            await _end(child)
        if child.returncode != 0:
            words = errors.decode(errors="replace").strip().splitlines()
            raise BuildFailedError(f"{what}: {words[-1] if words else child.returncode}")

    # -- what a build needs

    @contextlib.asynccontextmanager
    async def _room(self, tenant: TenantId, request: BuildImage) -> AsyncIterator[Room]:
        """Files, ids, network and cgroup of one build; nothing of it is left afterwards."""
        tools, build = self._tools, request.build
        first_id = await asyncio.to_thread(self._first_id, tenant)
        path = self._work / build
        path.mkdir()
        try:
            (path / "tenant").write_text(tenant)
            await asyncio.to_thread(tools.cgroups.make, build, request.limits)
            interface = await self._allocate(tenant, request, first_id)
            groups = tuple(tools.cgroups.enter_files(build))
            storage, netns = self._home / tenant / "storage", interface.netns_path
            with kernel.owner_of(netns) as userns_fd:
                room = Room(path, storage, userns_fd, first_id, groups, netns)
                await asyncio.to_thread(
                    buildah.prepare,
                    room,
                    self._registry(tenant),
                    hosts="127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
                    resolv="".join(f"nameserver {each}\n" for each in interface.dns_servers)
                    + "options ndots:0\n",
                )
                yield room
        finally:
            await self._clear(build, tenant)
            await asyncio.to_thread(self._spare_disk, tenant)

    def _registry(self, tenant: TenantId) -> Registry:
        settings = self._tools.settings
        secret = settings.fleet_secret.get_secret_value()
        expires_ns = self._tools.clock.now_ns() + _PASS_LIFE_NS
        return Registry(settings.registry_url, visitor_pass(secret, tenant, expires_ns), tenant)

    def _first_id(self, tenant: TenantId) -> int:
        """First user id of the tenant's builds on this host: always the same, as its cache is owned."""
        slots = self._tools.files.slots
        home = self._home / tenant
        slot = slots.take(_holder(tenant))
        first = slots.first_id(slot)
        if not (home / "slot").exists():
            home.mkdir(exist_ok=True)
            aside = home / "slot.new"
            with aside.open("w") as file:
                file.write(str(slot))
                file.flush()
                os.fsync(file.fileno())
            aside.rename(home / "slot")
        home.chmod(0o711)
        (home / "storage").mkdir(exist_ok=True)
        return first

    async def _allocate(
        self, tenant: TenantId, request: BuildImage, first_id: int
    ) -> InterfaceReady:
        return await self._tools.bus.call(
            ALLOCATE_INTERFACE,
            AllocateInterface(
                container=request.build,
                attempt=_ATTEMPT,
                networks=request.networks,
                owner=owner(first_id),
            ),
            tenant=tenant,
            subject=request.build,
            host=self._tools.host,
            timeout_s=_NETWORK_LIMIT_S,
        )

    async def _resolve(
        self, tenant: TenantId, name: str, recipe: Recipe, stream: ByteStream
    ) -> tuple[str, ImageDetail]:
        try:
            image = await self._tools.bus.call(
                FETCH_IMAGE, FetchImage(reference=name), tenant=tenant, subject=name
            )
        except NotFoundError as exc:
            first = recipe.steps[0].text
            await _line(stream, {"stream": f"Step 1/{len(recipe.steps)} : {first}\n"})
            raise BuildFailedError(exc.message) from exc
        return name, image

    # -- cache

    async def cache(self, job: Job, _args: PruneBuilds) -> BuildCache:
        """How large a tenant's cache is here."""
        size = await asyncio.to_thread(size_of, self._home / job.tenant / "storage")
        return BuildCache(size_bytes=size, is_in_use=self._is_busy(job.tenant))

    async def prune(self, job: Job, _args: PruneBuilds) -> PrunedBuilds:
        """Drop a tenant's cache; one in use stays. Repeating is harmless."""
        lock = self._locks.setdefault(job.tenant, asyncio.Lock())
        if lock.locked():
            return PrunedBuilds(freed_bytes=0)
        async with lock:
            storage = self._home / job.tenant / "storage"
            size = await asyncio.to_thread(size_of, storage)
            await asyncio.to_thread(shutil.rmtree, storage, ignore_errors=True)
        return PrunedBuilds(freed_bytes=size)

    def _is_busy(self, tenant: TenantId) -> bool:
        lock = self._locks.get(tenant)
        return lock is not None and lock.locked()

    def _spare_disk(self, tenant: TenantId) -> None:
        """Let go of the cache when the disk is nearly full."""
        there = os.statvfs(self._home)
        if there.f_bavail * there.f_frsize < _KEPT_FREE_BYTES:
            shutil.rmtree(self._home / tenant / "storage", ignore_errors=True)


def _holder(tenant: TenantId) -> ContainerId:
    """Under which name a tenant's builds hold their user ids."""
    return ContainerId(f"builder-{tenant}")


def _pull_of(image: ImageDetail) -> tuple[str, str]:
    pin = image.pin
    repository = familiar_repository(pin.repository)
    source = f"docker://docker.io/{repository}@{pin.manifest_digest}"
    return pin.image_id, source


def _outside(room: Room) -> Room:
    """The same room, with the agent's own network: nothing of the Dockerfile runs there."""
    return Room(room.path, room.storage, room.userns_fd, room.first_id, room.group_files)


async def _until_gone(stream: ByteStream) -> None:
    """Wait until the asker goes away, and say so."""
    with contextlib.suppress(ConnectionError):
        while await stream.read():
            pass
    raise _GoneError


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _line(stream: ByteStream, document: dict[str, Any]) -> None:
    await frames.send(stream, json.dumps(document).encode() + b"\r\n")


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return (
        ConnectionResetError("the client went away") if isinstance(failure, _GoneError) else failure
    )
