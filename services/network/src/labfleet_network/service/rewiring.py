"""Networks joined and left by a container that runs."""

from dataclasses import replace

from labfleet_network.core import addresses as rules
from labfleet_network.core import naming
from labfleet_network.service.attempts import Allocated, Attempts
from labfleet_network.service.places import Place, endpoint, main_claims, places
from labfleet_network.settings import Settings
from labfleet_proto.errors import ConflictError, StaleError
from labfleet_proto.ids import NetworkId
from labfleet_proto.jobs import Job
from labfleet_proto.networks import (
    AllocateInterface,
    InterfaceReady,
    InterfaceWish,
    NetworkRecord,
)


class Rewiring:
    """Makes the interfaces of a running attempt equal to its wishes."""

    def __init__(self, attempts: Attempts, settings: Settings) -> None:
        self._attempts = attempts
        self._tag = settings.tag

    async def change(self, job: Job, args: AllocateInterface) -> InterfaceReady:
        """Serve `change_interfaces`. Safe to repeat: it compares what is there with the wishes.

        Raises StaleError (another attempt), ConflictError (address taken, or it runs no more),
        NotFoundError, NoRoomError, InvalidRequestError.
        """
        attempts = self._attempts
        async with attempts.lock(args.container):
            known = attempts.get(args.container)
            if known is None or known.attempt < args.attempt:
                raise ConflictError(f"container {args.container} has no network namespace")
            if known.attempt > args.attempt:
                raise StaleError(f"container {args.container}: attempt {args.attempt} is over")
            networks = [await attempts.network(wish) for wish in args.networks]
            kept = {place.record.network for place in places(known.claims) if _keeps(place, args)}
            for network_id in {claim.record.network for claim in known.claims} - kept:
                await self._leave(args, network_id)
            for wish, network in zip(args.networks, networks, strict=True):
                if network.id not in kept:
                    await self._join(job, args, wish, network)
            return await self._settle(args, networks)

    async def _leave(self, args: AllocateInterface, network: NetworkId) -> None:
        attempts = self._attempts
        known = self._known(args)
        gone = [claim for claim in known.claims if claim.record.network == network]
        for claim in main_claims(gone):
            await attempts.wiring.unplug(claim.record)
        for claim in gone:
            await attempts.addresses.give_back(claim)
        rest = tuple(each for each in known.claims if each not in gone)
        attempts.put(args.container, replace(known, claims=rest))

    async def _join(
        self, job: Job, args: AllocateInterface, wish: InterfaceWish, network: NetworkRecord
    ) -> None:
        attempts = self._attempts
        used = {claim.record.interface for claim in self._known(args).claims}
        name = next(name for number in range(1 << 16) if (name := f"eth{number}") not in used)
        with attempts.fabric.using([network]):
            await attempts.fabric.ensure(network)
            try:
                place = await attempts.claim(job.tenant, args, wish, network, name)
                await attempts.wiring.plug(args.container, [network], [place])
            except BaseException:
                await self._leave(args, network.id)
                raise

    async def _settle(
        self, args: AllocateInterface, networks: list[NetworkRecord]
    ) -> InterfaceReady:
        """The way out, the published ports, and what the agent is told."""
        attempts = self._attempts
        by_network = {place.record.network: place for place in places(self._known(args).claims)}
        held = [by_network[network.id] for network in networks]
        out = rules.way_out(args.networks, networks)
        if out is not None:
            await attempts.wiring.set_way_out(args.container, networks[out], held[out])
        if args.ports and held:
            await attempts.exposure.publish(args.container, held[0].record, args.ports)
        elif args.ports:
            await attempts.exposure.withdraw(self._known(args).tenant, args.container, args.attempt)
        namespaces = attempts.namespaces
        name = naming.namespace(self._tag, args.container)
        ready = InterfaceReady(
            netns_path=str(namespaces.path(name)),
            endpoints=tuple(
                endpoint(*each) for each in zip(args.networks, networks, held, strict=True)
            ),
            dns_servers=tuple(network.gateway for network in networks[:1]),
            sysfs_path=str(namespaces.sysfs(name) or ""),
        )
        known = self._known(args)
        order = {network.id: number for number, network in enumerate(networks)}
        claims = tuple(sorted(known.claims, key=lambda each: order[each.record.network]))
        attempts.put(args.container, replace(known, ready=ready, claims=claims))
        return ready

    def _known(self, args: AllocateInterface) -> Allocated:
        known = self._attempts.get(args.container)
        if known is None:
            raise ConflictError(f"container {args.container} has no network namespace")
        return known


def _keeps(place: Place, args: AllocateInterface) -> bool:
    """Whether an interface is as one of the wishes has it."""
    record = place.record
    return any(
        wish.network == record.network
        and wish.address in (None, record.address)
        and (not place.address6 or wish.address6 in (None, place.address6))
        and wish.mac in (None, record.mac)
        and set(wish.aliases) <= set(record.names)
        and wish.links == record.links
        for wish in args.networks
    )
