"""Where a build works: its files, ids, network and cgroup, and its share of the host."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from labfleet_proto.builds import DROP_BUILD, BuildImage, ShelveBuild
from labfleet_proto.errors import InternalError, LabfleetError, NoRoomError, UnavailableError
from labfleet_proto.ids import ContainerId, TenantId
from labfleet_proto.networks import (
    ALLOCATE_INTERFACE,
    RELEASE_INTERFACE,
    AllocateInterface,
    InterfaceReady,
    ReleaseInterface,
)
from labfleet_proto.resources import Resources
from labfleet_proto.tenants import visitor_pass
from labfleet_runtime_agent.adapters import buildah, kernel
from labfleet_runtime_agent.adapters.buildah import Registry, Room
from labfleet_runtime_agent.core.build_words import hosts_file
from labfleet_runtime_agent.service.admission import Admission
from labfleet_runtime_agent.service.readiness import owner
from labfleet_runtime_agent.service.tools import Tools

_PASS_LIFE_NS = 2 * 3600 * 10**9
"""Of the builder's login: longer than a build."""
_NETWORK_LIMIT_S = 20.0
_ADMISSION_LIMIT_S = 60.0
_ASK_AGAIN_S = 0.5
_ATTEMPT = 1
_KEPT_FREE_BYTES = 2 << 30


class BuildRooms:
    """Makes rooms for builds below `<state>/builder`; nothing of one is left afterwards."""

    def __init__(self, tools: Tools, admission: Admission) -> None:
        self._tools = tools
        self._admission = admission
        self.home = tools.settings.state_dir / "builder"
        self._work = self.home / "work"
        for path in (self.home, self._work):
            path.mkdir(exist_ok=True)
            path.chmod(0o711)
        for path in self.home.glob("*/slot"):
            tools.files.slots.restore(_holder(TenantId(path.parent.name)), int(path.read_text()))

    def storage(self, tenant: TenantId) -> Path:
        """A tenant's cache."""
        return self.home / tenant / "storage"

    def is_known(self, build: ContainerId) -> bool:
        """Whether there is a room of this build."""
        return (self._work / build).exists()

    def registry(self, tenant: TenantId) -> Registry:
        """The image store as a tenant's builder reaches it."""
        settings = self._tools.settings
        secret = settings.fleet_secret.get_secret_value()
        expires_ns = self._tools.clock.now_ns() + _PASS_LIFE_NS
        return Registry(settings.registry_url, visitor_pass(secret, tenant, expires_ns), tenant)

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

    @contextlib.asynccontextmanager
    async def room(self, tenant: TenantId, request: BuildImage) -> AsyncIterator[Room]:
        """Files, ids, network and cgroup of one build. Raises NoRoomError, UnavailableError."""
        tools, build = self._tools, request.build
        async with self._share(request):
            first_id = await asyncio.to_thread(self._first_id, tenant)
            path = self._work / build
            path.mkdir()
            try:
                (path / "tenant").write_text(tenant)
                await asyncio.to_thread(tools.cgroups.make, build, request.limits)
                interface = await self._allocate(tenant, request, first_id)
                groups = tuple(tools.cgroups.enter_files(build))
                storage, netns = self.storage(tenant), interface.netns_path
                with kernel.owner_of(netns) as userns_fd:
                    room = Room(path, storage, userns_fd, first_id, groups, netns)
                    await asyncio.to_thread(
                        buildah.prepare,
                        room,
                        self.registry(tenant),
                        hosts_of_run=hosts_file(request),
                        resolv="".join(f"nameserver {each}\n" for each in interface.dns_servers)
                        + "options ndots:0\n",
                    )
                    yield room
            finally:
                await self._clear(build, tenant)
                await asyncio.to_thread(self._spare_disk, tenant)

    @contextlib.asynccontextmanager
    async def _share(self, request: BuildImage) -> AsyncIterator[None]:
        """Memory and processors of a build, held as a container's; it waits a minute for them."""
        limits = request.limits
        wanted = Resources(
            memory_bytes=limits.memory_bytes,
            cpu_millis=limits.cpu_millis,
            pids=limits.pids,
            containers=1,
        )
        end_s = self._tools.clock.monotonic_s() + _ADMISSION_LIMIT_S
        while True:
            try:
                self._admission.enter(request.build, wanted)
                break
            except NoRoomError:
                if self._tools.clock.monotonic_s() >= end_s:
                    raise
                await asyncio.sleep(_ASK_AGAIN_S)
        try:
            yield
        finally:
            self._admission.leave(request.build)

    def _first_id(self, tenant: TenantId) -> int:
        """First user id of the tenant's builds on this host: always the same, as its cache is owned."""
        slots = self._tools.files.slots
        home = self.home / tenant
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

    def _spare_disk(self, tenant: TenantId) -> None:
        """Let go of the cache when the disk is nearly full."""
        there = os.statvfs(self.home)
        if there.f_bavail * there.f_frsize < _KEPT_FREE_BYTES:
            shutil.rmtree(self.storage(tenant), ignore_errors=True)


def _holder(tenant: TenantId) -> ContainerId:
    """Under which name a tenant's builds hold their user ids."""
    return ContainerId(f"builder-{tenant}")
