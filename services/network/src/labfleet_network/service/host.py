"""The network of one host: a namespace and interfaces per container, kept equal to the records."""

import asyncio
import contextlib
import os
import time
import weakref
from dataclasses import dataclass
from typing import Any

from labfleet_chassis.service import Chassis
from labfleet_chassis.store import ExistsError
from labfleet_network.adapters import rtnetlink
from labfleet_network.adapters.dns import DnsServer
from labfleet_network.adapters.links import Links, Neighbour, set_sysctl
from labfleet_network.adapters.namespaces import Namespaces
from labfleet_network.adapters.nft import Nft
from labfleet_network.adapters.rtnetlink import Interface
from labfleet_network.core import addresses as rules
from labfleet_network.core import firewall, naming, wanted
from labfleet_network.core.answers import Directory
from labfleet_network.metrics import ALLOCATE_STEP, ENDPOINTS, REPAIRS
from labfleet_network.service.memory import Memory
from labfleet_network.service.ports import Ports, Publication
from labfleet_network.settings import Settings
from labfleet_proto.buckets import address_key
from labfleet_proto.errors import ConflictError, InternalError, NotFoundError, UnavailableError
from labfleet_proto.ids import ContainerId, HostId, NetworkId, TenantId
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing
from labfleet_proto.networks import (
    ENTRY,
    PUBLISH_PORTS,
    UNPUBLISH_PORTS,
    AddressRecord,
    AllocateInterface,
    Endpoint,
    InterfaceReady,
    InterfaceWish,
    NetworkCheck,
    NetworkRecord,
    PublishPorts,
    ReleaseInterface,
)

_VXLAN_OVERHEAD = 50
_PASS_EVERY_S = 5.0
_SETTLE_S = 0.02
_ENTRY_LIMIT_S = 2.0
_IDLE_S = 0.2
"""The pool is filled when no start came for so long, or it is empty anyway."""


@dataclass(frozen=True)
class Allocated:
    """What one attempt of a container has."""

    attempt: int
    tenant: TenantId
    ready: InterfaceReady
    keys: tuple[str, ...]
    """Of its addresses."""


class Kernel:
    """The adapters of this host."""

    def __init__(self, settings: Settings) -> None:
        self.namespaces = Namespaces(settings.run_dir)
        self.links = Links()
        self.nft = Nft()

    def close(self) -> None:
        """Let go; what was made stays."""
        self.namespaces.close()
        self.links.close()


class HostNetwork:
    """Serves the agent of this host."""

    def __init__(
        self, chassis: Chassis, memory: Memory, kernel: Kernel, settings: Settings
    ) -> None:
        self._chassis = chassis
        self._memory = memory
        self._kernel = kernel
        self._settings = settings
        self._me = HostId(settings.host)
        self._table = f"{settings.tag}-host"
        self._mtu = settings.underlay_mtu - _VXLAN_OVERHEAD
        self.ports = Ports(kernel.nft, self._table)
        self._allocated: dict[ContainerId, Allocated] = {}
        self._locks: weakref.WeakValueDictionary[ContainerId, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )
        """Alive while anybody holds or awaits them, so that one container never has two."""
        self._network_lock = asyncio.Lock()
        self._bridges: dict[NetworkId, tuple[int, int]] = {}
        """Index of bridge and vxlan device."""
        self._taught: dict[NetworkId, set[Neighbour]] = {}
        self._in_use: dict[NetworkId, int] = {}
        self._pool: list[str] = []
        """Tokens of namespaces that are ready."""
        self._taken = asyncio.Event()
        self._names = Directory()
        self._names_at = (-1, -1)
        self.dns = DnsServer(self.directory, chassis.log)

    # -- start

    async def prepare(self) -> None:
        """Set the host up, sweep what no record explains, take up what is there."""
        await asyncio.to_thread(self._set_up)
        for token in self._kernel.namespaces.spares():
            await self._in_thread(self._kernel.namespaces.drop, token)
        running = {
            naming.namespace(self._settings.tag, seen.id): seen
            for seen in self._memory.seen().values()
            if seen.host == self._me
        }
        for name in self._kernel.namespaces.names() - set(running):
            if not self._is_recorded(name):
                REPAIRS.labels("namespace").inc()
                await self._in_thread(self._kernel.namespaces.remove, name)
        self._adopt()
        await self.reconcile()
        for container, each in list(self._allocated.items()):
            await self._republish(container, each)

    def _is_recorded(self, name: str) -> bool:
        return any(
            naming.namespace(self._settings.tag, record.id) == name
            for record in self._memory.containers.values()
        )

    def _set_up(self) -> None:
        for key, value in (
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/route_localnet", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("bridge/bridge-nf-call-iptables", "0"),
        ):
            set_sysctl(key, value)
        self._kernel.nft.run(
            firewall.host_table(self._settings.tag, self._settings.underlay_subnet)
        )
        self._kernel.nft.run(firewall.spoof_table(self._settings.tag))

    def _adopt(self) -> None:
        """Take up the attempts that an earlier life of this service allocated."""
        by_container: dict[ContainerId, list[tuple[str, AddressRecord]]] = {}
        for key, entry in self._memory.addresses.entries.items():
            if entry.value.host == self._me:
                by_container.setdefault(entry.value.container, []).append((key, entry.value))
        for container, pairs in by_container.items():
            name = naming.namespace(self._settings.tag, container)
            if self._kernel.namespaces.path(name) is None:
                continue
            ready = InterfaceReady(netns_path="", endpoints=(), dns_servers=())
            self._allocated[container] = Allocated(
                pairs[0][1].attempt, pairs[0][1].tenant, ready, tuple(key for key, _ in pairs)
            )

    async def _republish(self, container: ContainerId, each: Allocated) -> None:
        """After a restart: anti-spoofing and published ports of a running container."""
        for key in each.keys:
            record = self._memory.addresses.get(key)
            if record is not None:
                veth = naming.veth(self._settings.tag, container, record.network)
                await self._kernel.nft.command(
                    firewall.add_source(self._settings.tag, veth, record.mac, record.address)
                )
        owner = self._memory.containers.get(f"{each.tenant}.{container}")
        first = self._memory.addresses.get(each.keys[0]) if each.keys else None
        if owner is None or first is None:
            return
        ports = wanted.ports_of(owner)
        if ports:
            publication = Publication(
                each.tenant, each.attempt, first.address, ports, keeps_host_port=False
            )
            await self.ports.publish(container, publication)

    # -- jobs

    async def allocate(self, job: Job, args: AllocateInterface) -> InterfaceReady:
        """Serve `allocate_interface`. Safe to repeat: by container and attempt.

        Raises PortInUseError, NoRoomError, ConflictError, NotFoundError, InvalidRequestError.
        """
        async with self._lock(args.container):
            known = self._allocated.get(args.container)
            if known is not None and known.attempt == args.attempt and known.ready.netns_path:
                return known.ready
            if known is not None:
                await self._release(args.container, args.attempt)
            allocated = Allocated(
                args.attempt,
                job.tenant,
                InterfaceReady(netns_path="", endpoints=(), dns_servers=()),
                (),
            )
            self._allocated[args.container] = allocated
            try:
                await self._allocate(job.tenant, args)
            except BaseException:
                with contextlib.suppress(UnavailableError, InternalError):
                    await self._release(args.container, args.attempt)
                raise
            return self._allocated[args.container].ready

    async def release(self, _job: Job, args: ReleaseInterface) -> Nothing:
        """Serve `release_interface`. Unknown is success."""
        async with self._lock(args.container):
            await self._release(args.container, args.attempt)
        return Nothing()

    async def check(self, _job: Job, _args: Nothing) -> NetworkCheck:
        """Serve `check_network`: leaks on this host."""
        return NetworkCheck(findings=tuple(self._findings()))

    def _lock(self, container: ContainerId) -> asyncio.Lock:
        lock = self._locks.get(container)
        if lock is None:
            lock = asyncio.Lock()
            self._locks[container] = lock
        return lock

    # -- allocate

    async def _allocate(self, tenant: TenantId, args: AllocateInterface) -> None:
        networks = [self._network(wish) for wish in args.networks]
        for network in networks:
            self._in_use[network.id] = self._in_use.get(network.id, 0) + 1
        try:
            async with asyncio.TaskGroup() as tasks:
                making = tasks.create_task(self._timed("namespace", self._take(args.container)))
                claims = [
                    tasks.create_task(
                        self._timed("address", self._claim(tenant, args, wish, network))
                    )
                    for wish, network in zip(args.networks, networks, strict=True)
                ]
                for network in networks:
                    tasks.create_task(self._timed("network", self._ensure(network)))
        except ExceptionGroup as group:  # not except*: that would wrap what is raised here
            raise _first(group) from None
        name = making.result()
        records: list[AddressRecord] = [claim.result() for claim in claims]
        self._note_keys(args.container, records)
        try:
            await self._timed("plug", self._plug(args, name, networks, records))
        finally:
            for network in networks:
                self._in_use[network.id] -= 1
        endpoints = tuple(
            Endpoint(
                network=network.id,
                network_name=wish.network_name,
                address=record.address,
                prefix_len=rules.prefix_len(network),
                mac=record.mac,
                gateway="" if network.is_internal else network.gateway,
                interface=f"eth{number}",
                aliases=wish.aliases,
            )
            for number, (wish, network, record) in enumerate(
                zip(args.networks, networks, records, strict=True)
            )
        )
        if args.ports and endpoints:
            await self._timed("ports", self._publish(tenant, args, endpoints[0].address))
        ready = InterfaceReady(
            netns_path=str(self._kernel.namespaces.path(name)),
            endpoints=endpoints,
            dns_servers=tuple(network.gateway for network in networks[:1]),
            sysfs_path=str(self._kernel.namespaces.sysfs(name) or ""),
        )
        known = self._allocated[args.container]
        self._allocated[args.container] = Allocated(args.attempt, tenant, ready, known.keys)
        ENDPOINTS.set(sum(len(each.ready.endpoints) for each in self._allocated.values()))

    async def _timed(self, step: str, work: Any) -> Any:
        began = time.perf_counter()
        try:
            return await work
        finally:
            ALLOCATE_STEP.labels(step).observe(time.perf_counter() - began)

    def _network(self, wish: InterfaceWish) -> NetworkRecord:
        found = self._memory.networks.get(wish.network)
        if found is None:
            raise NotFoundError(f"network {wish.network_name or wish.network} not found")
        return found

    def _note_keys(self, container: ContainerId, records: list[AddressRecord]) -> None:
        known = self._allocated[container]
        keys = tuple(address_key(record.network, record.address) for record in records)
        self._allocated[container] = Allocated(known.attempt, known.tenant, known.ready, keys)

    async def _in_thread(self, work: Any, *args: Any) -> Any:
        """Run in the thread that may enter namespaces."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._kernel.namespaces.thread, work, *args)

    async def _take(self, container: ContainerId) -> str:
        """A namespace for a container: a ready one, or a new one."""
        name = naming.namespace(self._settings.tag, container)
        spaces = self._kernel.namespaces
        if spaces.path(name) is not None:
            await self._in_thread(spaces.remove, name)
        token = self._pool.pop() if self._pool else await self._in_thread(spaces.make)
        self._taken.set()
        spaces.give(token, name)
        return name

    async def fill_pool(self) -> None:
        """Keep some namespaces ready, in idle time, for ever."""
        while True:
            self._taken.clear()
            while len(self._pool) < self._settings.pool_size:
                self._pool.append(await self._in_thread(self._kernel.namespaces.make))
            await self._taken.wait()
            await asyncio.sleep(_IDLE_S)

    async def _claim(
        self,
        tenant: TenantId,
        args: AllocateInterface,
        wish: InterfaceWish,
        network: NetworkRecord,
    ) -> AddressRecord:
        """Claim an address by a create-only write."""
        if wish.address is not None:
            rules.check_asked(network, wish.address)
        taken = {
            each.address for each in self._memory.addresses.values() if each.network == network.id
        }
        while True:
            address = wish.address or rules.lowest_free(network, taken)
            record = AddressRecord(
                network=network.id,
                address=address,
                mac=rules.mac_of(address),
                host=self._me,
                vtep=self._settings.address,
                tenant=tenant,
                container=args.container,
                attempt=args.attempt,
                names=wish.names,
            )
            try:
                await self._memory.addresses.bucket.create(address_key(network.id, address), record)
            except ExistsError as exc:
                if wish.address is not None:
                    raise ConflictError(f"Address already in use: {address}") from exc
                taken.add(address)
                continue
            self._note_claim(args.container, record)
            return record

    def _note_claim(self, container: ContainerId, record: AddressRecord) -> None:
        known = self._allocated[container]
        key = address_key(record.network, record.address)
        self._allocated[container] = Allocated(
            known.attempt, known.tenant, known.ready, (*known.keys, key)
        )

    async def _ensure(self, network: NetworkRecord) -> None:
        """Have the network on this host: bridge, tunnel, firewall, DNS."""
        if network.id in self._bridges:
            return
        async with self._network_lock:
            if network.id not in self._bridges:
                self._bridges[network.id] = await asyncio.to_thread(self._make_network, network)
                await self.dns.listen(network.gateway)
                await self._teach(network.id)

    def _make_network(self, network: NetworkRecord) -> tuple[int, int]:
        tag, links = self._settings.tag, self._kernel.links
        name = naming.bridge(tag, network.id)
        bridge = links.ensure_bridge(
            name,
            rules.gateway_mac(network),
            network.gateway,
            rules.prefix_len(network),
            self._mtu,
        )
        underlay = links.index(self._settings.underlay_interface)
        vxlan = links.ensure_vxlan(
            naming.vxlan(tag, network.id),
            network.vni,
            bridge,
            {
                "local": self._settings.address,
                "port": self._settings.vxlan_port,
                "link": underlay,
                "mtu": self._mtu,
            },
        )
        self._kernel.nft.run(
            firewall.add_network(self._table, name, network.subnet, is_open=not network.is_internal)
        )
        return bridge, vxlan

    async def _plug(
        self,
        args: AllocateInterface,
        name: str,
        networks: list[NetworkRecord],
        records: list[AddressRecord],
    ) -> None:
        await self._in_thread(self._plug_now, args.container, name, networks, records)

    def _plug_now(
        self,
        container: ContainerId,
        name: str,
        networks: list[NetworkRecord],
        records: list[AddressRecord],
    ) -> None:
        tag, kernel = self._settings.tag, self._kernel
        interfaces = [
            Interface(
                veth=naming.veth(tag, container, network.id),
                bridge=self._bridges[network.id][0],
                name=f"eth{number}",
                mac=record.mac,
                address=record.address,
                prefix_len=rules.prefix_len(network),
                gateway="" if network.is_internal else network.gateway,
                mtu=self._mtu,
            )
            for number, (network, record) in enumerate(zip(networks, records, strict=True))
        ]
        if not interfaces:
            return
        namespace = os.open(str(kernel.namespaces.path(name)), os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.nft.run(
                "".join(firewall.add_source(tag, i.veth, i.mac, i.address) for i in interfaces)
            )
            rtnetlink.plug(interfaces, namespace)
        finally:
            os.close(namespace)
        kernel.namespaces.inside(name, lambda: rtnetlink.configure(interfaces))

    async def _publish(self, tenant: TenantId, args: AllocateInterface, address: str) -> None:
        publication = Publication(tenant, args.attempt, address, args.ports, keeps_host_port=False)
        await self.ports.publish(args.container, publication)
        if not self._settings.with_entry:
            return
        wish = PublishPorts(
            container=args.container,
            attempt=args.attempt,
            target=self._settings.address,
            ports=args.ports,
        )
        try:
            await self._chassis.bus.call(
                PUBLISH_PORTS,
                wish,
                tenant=tenant,
                subject=args.container,
                host=ENTRY,
                timeout_s=_ENTRY_LIMIT_S,
            )
        except UnavailableError as exc:  # its own loop leads them once the container runs
            self._chassis.log.warning("entry.silent", container=args.container, error=exc.message)

    # -- release

    async def _release(self, container: ContainerId, attempt: int) -> None:
        known = self._allocated.get(container)
        if known is not None and known.attempt > attempt:
            return
        had_ports = container in self.ports.published()
        await self.ports.withdraw(container, attempt)
        if had_ports and self._settings.with_entry and known is not None:
            with contextlib.suppress(UnavailableError):  # its own loop withdraws them
                await self._chassis.bus.call(
                    UNPUBLISH_PORTS,
                    ReleaseInterface(container=container, attempt=attempt),
                    tenant=known.tenant,
                    subject=container,
                    host=ENTRY,
                    timeout_s=_ENTRY_LIMIT_S,
                )
        await self._in_thread(
            self._kernel.namespaces.remove, naming.namespace(self._settings.tag, container)
        )
        for key, record in self._mine(container, attempt, known):
            veth = naming.veth(self._settings.tag, container, record.network)
            await asyncio.to_thread(
                self._kernel.nft.try_run,
                firewall.delete_source(self._settings.tag, veth, record.mac, record.address),
            )
            await self._memory.addresses.bucket.delete(key)
        self._allocated.pop(container, None)
        ENDPOINTS.set(sum(len(each.ready.endpoints) for each in self._allocated.values()))

    def _mine(
        self, container: ContainerId, attempt: int, known: Allocated | None
    ) -> list[tuple[str, AddressRecord]]:
        """The container's addresses here; also those that the mirror has not seen yet."""
        found = {
            key: entry.value
            for key, entry in self._memory.addresses.entries.items()
            if entry.value.container == container
            and entry.value.host == self._me
            and entry.value.attempt <= attempt
        }
        for key in known.keys if known is not None else ():
            if key not in found:
                network, _, address = key.partition(".")
                found[key] = AddressRecord(
                    network=NetworkId(network),
                    address=address,
                    mac=rules.mac_of(address),
                    host=self._me,
                    vtep=self._settings.address,
                    tenant=known.tenant if known else TenantId(""),
                    container=container,
                    attempt=attempt,
                    names=(),
                )
        return list(found.items())

    # -- the loop

    async def keep(self) -> None:
        """Compare kernel and records whenever something moved, and every five seconds; for ever."""
        moved = asyncio.Event()
        memory = self._memory
        for mirror in (memory.networks, memory.addresses, memory.containers, memory.observed):
            mirror.listen(lambda _key, _entry: moved.set())
        swept_s = 0.0
        while True:
            moved.clear()
            is_full = self._chassis.clock.monotonic_s() - swept_s > _PASS_EVERY_S
            await self.reconcile(sweep=is_full)
            if is_full:
                swept_s = self._chassis.clock.monotonic_s()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PASS_EVERY_S):
                    await moved.wait()
                    await asyncio.sleep(_SETTLE_S)

    async def reconcile(self, *, sweep: bool = True) -> None:
        """One pass; with `sweep` also over the links of the kernel, which costs a dump of them all."""
        await self._release_stale()
        here = {
            each.network for each in self._memory.addresses.values() if each.host == self._me
        } | {network for network, users in self._in_use.items() if users > 0}
        for network in here:
            record = self._memory.networks.get(network)
            if record is not None:
                await self._ensure(record)
                await self._teach(network)
        if sweep or set(self._bridges) - here:
            await self._drop_unused(here)

    async def _release_stale(self) -> None:
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
                async with self._lock(container):
                    await self._release(container, attempt)

    async def _teach(self, network: NetworkId) -> None:
        """Make forwarding and neighbour entries equal to the other hosts' containers."""
        if network not in self._bridges:
            return
        remote = wanted.remotes(self._memory.addresses.values(), {network}, self._me)[network]
        target = {Neighbour(each.address, each.mac, each.vtep) for each in remote}
        bridge, vxlan = self._bridges[network]
        links = self._kernel.links
        if network not in self._taught:
            self._taught[network] = await asyncio.to_thread(links.learned, vxlan, bridge)
        known = self._taught[network]
        for one in known - target:
            await asyncio.to_thread(links.unteach, vxlan, bridge, one)
        for one in target - known:
            await asyncio.to_thread(links.teach, vxlan, bridge, one)
        self._taught[network] = target

    async def _drop_unused(self, here: set[NetworkId]) -> None:
        """Take bridges away that no container here needs any more."""
        tag, links = self._settings.tag, self._kernel.links
        keep = {naming.bridge(tag, network) for network in here}
        keep |= {naming.vxlan(tag, network) for network in here}
        async with self._network_lock:
            busy = {network for network, users in self._in_use.items() if users > 0}
            for network in set(self._bridges) - here - busy:
                del self._bridges[network]
                self._taught.pop(network, None)
                record = self._memory.networks.get(network)
                if record is not None:
                    self.dns.quiet(record.gateway)
            keep |= {naming.bridge(tag, network) for network in busy}
            keep |= {naming.vxlan(tag, network) for network in busy}
            for kind in (naming.VXLAN, naming.BRIDGE):
                for name in await asyncio.to_thread(links.names, f"{tag}{kind}"):
                    if name not in keep and len(name) == len(tag) + 1 + naming.HEX:
                        await asyncio.to_thread(links.delete, name)

    def directory(self) -> Directory:
        """Names of the fleet as DNS answers them; built again when the memory has moved."""
        memory = self._memory
        at = (memory.addresses.revision, memory.networks.revision)
        if at != self._names_at:
            names = {network.id: network.name for network in memory.networks.values()}
            self._names = Directory.of(memory.addresses.values(), names)
            self._names_at = at
        return self._names

    def _findings(self) -> list[str]:
        tag = self._settings.tag
        known = {naming.namespace(tag, record.id) for record in self._memory.containers.values()}
        found = [
            f"network namespace {name} belongs to no container"
            for name in sorted(self._kernel.namespaces.names() - known)
        ]
        observed = self._memory.seen()
        for container in self.ports.published():
            seen = observed.get(container)
            if seen is None or (wanted.is_over(None, seen, seen.attempt) and seen.endpoints == ()):
                found.append(f"ports of {container} are published but it does not run")
        return found


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
