"""The attempts of this host's containers: what each has of namespace, interfaces and ports.

Longer than other modules: allocate and release are two ways to the same table, under the same locks.
"""

import asyncio
import contextlib
import time
import weakref
from dataclasses import dataclass, replace
from typing import Any

from labfleet_chassis.service import Chassis
from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_network.core import addresses as rules
from labfleet_network.core import firewall, naming, wanted
from labfleet_network.metrics import ALLOCATE_STEP, ENDPOINTS, REPAIRS
from labfleet_network.service.addresses import Addresses, Claim
from labfleet_network.service.exposure import Exposure
from labfleet_network.service.fabric import Fabric
from labfleet_network.service.kernel import Kernel
from labfleet_network.service.memory import Memory
from labfleet_network.service.places import Place, endpoint, places
from labfleet_network.service.ports import Ports
from labfleet_network.service.wiring import Wiring
from labfleet_network.settings import Settings
from labfleet_proto.buckets import container_key
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import (
    ConflictError,
    InternalError,
    NotFoundError,
    StaleError,
    UnavailableError,
)
from labfleet_proto.ids import ContainerId, HostId, TenantId
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing
from labfleet_proto.networks import (
    AllocateInterface,
    InterfaceReady,
    InterfaceWish,
    NetworkRecord,
    ReleaseInterface,
)


@dataclass(frozen=True)
class Allocated:
    """What one attempt of a container has."""

    attempt: int
    tenant: TenantId
    ready: InterfaceReady
    claims: tuple[Claim, ...] = ()


_NOTHING_READY = InterfaceReady(netns_path="", endpoints=(), dns_servers=())


class Attempts:
    """What the containers here have; every change goes through here."""

    def __init__(
        self, chassis: Chassis, memory: Memory, kernel: Kernel, settings: Settings, fabric: Fabric
    ) -> None:
        self._chassis = chassis
        self._memory = memory
        self._kernel = kernel
        self._settings = settings
        self._me = HostId(settings.host)
        self.fabric = fabric
        self.addresses = Addresses(memory, kernel, settings)
        self.ports = Ports(kernel.nft, f"{settings.tag}-host")
        self.exposure = Exposure(chassis, settings, self.ports, fabric.routers)
        self.wiring = Wiring(kernel, settings, fabric)
        self.namespaces = kernel.namespaces
        self._allocated: dict[ContainerId, Allocated] = {}
        self._locks: weakref.WeakValueDictionary[ContainerId, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )
        """Alive while anybody holds or awaits them, so that one container never has two."""

    # -- start

    def adopt(self) -> None:
        """Take up the attempts that an earlier life of this service allocated."""
        by_container: dict[ContainerId, list[Claim]] = {}
        for key, entry in self._memory.addresses.entries.items():
            if entry.value.host == self._me:
                claim = Claim(key, entry.revision, entry.value)
                by_container.setdefault(entry.value.container, []).append(claim)
        for container, claims in by_container.items():
            name = naming.namespace(self._settings.tag, container)
            newest = max(claim.record.attempt for claim in claims)
            if self._kernel.namespaces.path(name) is not None:
                self._allocated[container] = Allocated(
                    newest,
                    claims[0].record.tenant,
                    _NOTHING_READY,
                    tuple(
                        sorted(
                            (claim for claim in claims if claim.record.attempt == newest),
                            key=lambda claim: claim.record.interface,
                        )
                    ),
                )

    def sources(self) -> str:
        """Commands that let the containers here send, each from its own addresses."""
        tag = self._settings.tag
        records = (claim.record for each in self._allocated.values() for claim in each.claims)
        return "".join(
            firewall.add_source(
                tag,
                naming.veth(tag, record.container, record.network),
                record.mac,
                record.address,
                *record.link_local,
            )
            for record in records
        )

    async def republish(self) -> None:
        """After a restart: everything that is led for running containers."""
        for container, each in list(self._allocated.items()):
            await self._republish(container, each)

    async def _republish(self, container: ContainerId, each: Allocated) -> None:
        """After a restart: published ports of a running container."""
        owner = self._memory.containers.get(container_key(each.tenant, container))
        if owner is None or not each.claims:
            return
        ports = wanted.ports_of(owner)
        if ports:
            await self.exposure.lead(container, places(each.claims)[0].record, ports)

    # -- jobs

    async def allocate(self, job: Job, args: AllocateInterface) -> InterfaceReady:
        """Serve `allocate_interface`. Safe to repeat: by container and attempt.

        Raises PortInUseError, NoRoomError, ForbiddenError, ConflictError, NotFoundError, InvalidRequestError, and
        StaleError for an attempt that is older than what the container has.
        """
        if args.shares is not None:
            return await self._share(job.tenant, args.shares)
        async with self.lock(args.container):
            known = self._allocated.get(args.container)
            if known is not None and known.attempt > args.attempt:
                raise StaleError(f"container {args.container}: attempt {args.attempt} is over")
            if known is not None and known.attempt == args.attempt and known.ready.netns_path:
                return known.ready
            if known is not None or self.addresses.mine(args.container, args.attempt):
                await self._release(args.container, args.attempt)
            self._allocated[args.container] = Allocated(args.attempt, job.tenant, _NOTHING_READY)
            try:
                await self._allocate(job.tenant, args)
            except BaseException:
                with contextlib.suppress(UnavailableError, InternalError):
                    await self._release(args.container, args.attempt)
                raise
            return self._allocated[args.container].ready

    async def release(self, _job: Job, args: ReleaseInterface) -> Nothing:
        """Serve `release_interface`. Unknown is success."""
        async with self.lock(args.container):
            await self._release(args.container, args.attempt)
        return Nothing()

    def get(self, container: ContainerId) -> Allocated | None:
        """What a container has now."""
        return self._allocated.get(container)

    def put(self, container: ContainerId, allocated: Allocated) -> None:
        """Note what a container has now."""
        self._allocated[container] = allocated
        ENDPOINTS.set(sum(len(places(each.claims)) for each in self._allocated.values()))

    def lock(self, container: ContainerId) -> asyncio.Lock:
        """One at a time changes what a container has."""
        lock = self._locks.get(container)
        if lock is None:
            lock = asyncio.Lock()
            self._locks[container] = lock
        return lock

    async def _share(self, tenant: TenantId, container: ContainerId) -> InterfaceReady:
        """What another container of the tenant has, for one that joins it. Raises ConflictError."""
        known = self._allocated.get(container)
        name = naming.namespace(self._settings.tag, container)
        path = self.namespaces.path(name)
        if known is None or known.tenant != tenant or path is None:
            raise ConflictError(f"cannot join network of a non running container: {container}")
        found = []
        for place in places(known.claims):
            record = place.record
            wish = InterfaceWish(network=record.network, network_name="", names=record.names)
            network = await self.network(wish)
            found.append(endpoint(wish, network, place))
        return InterfaceReady(
            netns_path=str(path),
            endpoints=tuple(found),
            dns_servers=tuple(each.gateway for each in found[:1] if each.gateway),
            sysfs_path=str(self.namespaces.sysfs(name) or ""),
        )

    def _is_shared(self, container: ContainerId) -> bool:
        """Whether others may be in a container's namespace: then it does not end with it."""
        return any(
            each.spec.shares_network_of == container for each in self._memory.containers.values()
        )

    # -- allocate

    async def _allocate(self, tenant: TenantId, args: AllocateInterface) -> None:
        networks = [await self.network(wish) for wish in args.networks]
        name = naming.namespace(self._settings.tag, args.container)
        with self.fabric.using(networks):
            try:
                async with TaskGroup() as tasks:
                    tasks.create_task(
                        self._timed("namespace", self._kernel.take_namespace(name, args.owner))
                    )
                    claims = [
                        tasks.create_task(
                            self._timed(
                                "address", self.claim(tenant, args, wish, network, f"eth{number}")
                            )
                        )
                        for number, (wish, network) in enumerate(
                            zip(args.networks, networks, strict=True)
                        )
                    ]
                    for network in networks:
                        tasks.create_task(self._timed("network", self.fabric.ensure(network)))
            except ExceptionGroup as group:  # not except*: that would wrap what is raised here
                raise first_of(group) from None
            held: list[Place] = [claim.result() for claim in claims]
            way_out = rules.way_out(args.networks, networks)
            await self._timed("plug", self.wiring.plug(args.container, networks, held, way_out))
            await self.wiring.set_sysctls(args.container, args.sysctls)
        if args.ports and held:
            await self._timed(
                "ports", self.exposure.publish(args.container, held[0].record, args.ports)
            )
        endpoints = tuple(
            endpoint(*each) for each in zip(args.networks, networks, held, strict=True)
        )
        ready = InterfaceReady(
            netns_path=str(self._kernel.namespaces.path(name)),
            endpoints=endpoints,
            dns_servers=tuple(network.gateway for network in networks[:1]),
            sysfs_path=str(self._kernel.namespaces.sysfs(name) or ""),
            owner=args.owner,
        )
        known = self._allocated[args.container]
        self._allocated[args.container] = replace(known, ready=ready)
        ENDPOINTS.set(sum(len(each.ready.endpoints) for each in self._allocated.values()))

    async def _timed(self, step: str, work: Any) -> Any:
        began = time.perf_counter()
        try:
            return await work
        finally:
            ALLOCATE_STEP.labels(step).observe(time.perf_counter() - began)

    async def network(self, wish: InterfaceWish) -> NetworkRecord:
        """A network's record; one that the mirror has not seen yet is read from the store."""
        found = self._memory.networks.get(wish.network)
        if found is None:
            entry = await self._memory.networks.bucket.get(wish.network)
            found = entry.value if entry is not None else None
        if found is None:
            raise NotFoundError(f"network {wish.network_name or wish.network} not found")
        return found

    async def claim(
        self,
        tenant: TenantId,
        args: AllocateInterface,
        wish: InterfaceWish,
        network: NetworkRecord,
        interface: str,
    ) -> Place:
        """Claim addresses and note each at once: should another step fail, it is given back."""
        claim = await self.addresses.claim(tenant, args, wish, network, interface)
        self._note(args.container, claim)
        pool = rules.pool6(network)
        if pool is None:
            return Place(claim.record)
        beside = await self.addresses.claim6(wish, network, pool, claim.record)
        self._note(args.container, beside)
        return Place(claim.record, beside.record.address)

    def _note(self, container: ContainerId, claim: Claim) -> None:
        known = self._allocated[container]
        self._allocated[container] = replace(known, claims=(*known.claims, claim))

    # -- release

    async def _release(self, container: ContainerId, attempt: int) -> None:
        known = self._allocated.get(container)
        if known is not None and known.attempt > attempt:
            return
        await self.exposure.withdraw(
            known.tenant if known is not None else None, container, attempt
        )
        await self._kernel.in_thread(
            self._kernel.namespaces.remove, naming.namespace(self._settings.tag, container)
        )
        claims = {claim.key: claim for claim in (known.claims if known is not None else ())}
        for claim in self.addresses.mine(container, attempt):
            older = claims.get(claim.key)
            if older is None or older.revision < claim.revision:
                claims[claim.key] = claim
        is_shared = bool(claims) and self._is_shared(container)
        for claim in claims.values():
            if is_shared:
                await self.wiring.unplug(claim.record)
            await self.addresses.give_back(claim)
        self._allocated.pop(container, None)
        ENDPOINTS.set(sum(len(each.ready.endpoints) for each in self._allocated.values()))

    # -- what is over

    async def release_stale(self) -> None:
        """Release what no attempt needs any more, as when the agent's own word for it was lost."""
        memory = self._memory
        addresses = {key: entry.value for key, entry in memory.addresses.entries.items()}
        stale = wanted.stale_addresses(addresses, memory.records(), memory.seen(), self._me)
        suspects = {
            (each.tenant, each.container, each.attempt)
            for each in (addresses[key] for key in stale)
        }
        suspects |= {
            (each.tenant, container, each.attempt) for container, each in self._allocated.items()
        }
        for tenant, container, attempt in suspects:
            if await memory.is_over(tenant, container, attempt):
                REPAIRS.labels("address").inc()
                async with self.lock(container):
                    await self._release(container, attempt)
        every = self.addresses.every()
        for container, each in list(self._allocated.items()):
            # A crash between claim and plug leaves an address beside the one that was claimed anew.
            kept = {claim.key for claim in each.claims}
            there = every.get(container, ())
            if any(
                claim.key not in kept for claim in there if claim.record.attempt <= each.attempt
            ):
                async with self.lock(container):
                    await self._drop_strays(container)

    async def follow_names(self) -> None:
        """Let the addresses here carry the names that their containers have now (`docker rename`)."""
        for container, each in list(self._allocated.items()):
            owner = self._memory.containers.get(container_key(each.tenant, container))
            if owner is None or all(wanted.is_named(owner, one.record) for one in each.claims):
                continue
            async with self.lock(container):
                await self._rename(container, owner)

    async def _rename(self, container: ContainerId, owner: ContainerRecord) -> None:
        each = self._allocated.get(container)
        if each is None:
            return
        claims = [await self.addresses.renamed(one, owner) for one in each.claims]
        self._allocated[container] = replace(each, claims=tuple(claims))

    async def _drop_strays(self, container: ContainerId) -> None:
        each = self._allocated.get(container)
        if each is None or not each.ready.netns_path:
            return
        kept = {claim.key for claim in each.claims}
        for claim in self.addresses.mine(container, each.attempt):
            if claim.key not in kept:
                REPAIRS.labels("address").inc()
                await self.addresses.give_back(claim)
