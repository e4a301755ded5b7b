"""Addresses of this host's containers: claimed by a create-only write, given back at their revision."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from labfleet_chassis.store import ExistsError
from labfleet_network.core import addresses as rules
from labfleet_network.core import firewall, naming, wanted
from labfleet_network.service.kernel import Kernel
from labfleet_network.service.memory import Memory
from labfleet_network.settings import Settings
from labfleet_proto.buckets import address_key
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import ForbiddenError, StaleError
from labfleet_proto.ids import ContainerId, HostId, TenantId
from labfleet_proto.networks import (
    AddressPool,
    AddressRecord,
    AllocateInterface,
    InterfaceWish,
    NetworkRecord,
)


@dataclass(frozen=True)
class Claim:
    """An address of a container here, as it was written."""

    key: str
    revision: int
    record: AddressRecord


class Addresses:
    """Claims and gives back."""

    def __init__(self, memory: Memory, kernel: Kernel, settings: Settings) -> None:
        self._memory = memory
        self._kernel = kernel
        self._settings = settings
        self._me = HostId(settings.host)
        self._asked: set[str] = set()
        """Keys claimed here that the mirror does not show yet: parallel starts pass them over."""

    async def claim(
        self,
        tenant: TenantId,
        args: AllocateInterface,
        wish: InterfaceWish,
        network: NetworkRecord,
        interface: str,
    ) -> Claim:
        """Claim the address that was asked for, or the lowest free one.

        Raises ForbiddenError, InvalidRequestError, NoRoomError, UnavailableError.
        """
        if wish.address is not None:
            rules.check_asked(network, wish.address)

        def record_of(address: str) -> AddressRecord:
            return AddressRecord(
                network=network.id,
                address=address,
                mac=wish.mac or rules.mac_of(address),
                host=self._me,
                vtep=self._settings.address,
                tenant=tenant,
                container=args.container,
                attempt=args.attempt,
                names=wish.names,
                interface=interface,
                links=wish.links,
                link_local=wish.link_local,
            )

        return await self._first_free(
            network, wish.address, partial(rules.lowest_free, network), record_of
        )

    async def claim6(
        self, wish: InterfaceWish, network: NetworkRecord, pool: AddressPool, beside: AddressRecord
    ) -> Claim:
        """Claim an IPv6 address for an interface that has its other one. Raises as `claim`."""
        if wish.address6 is not None:
            rules.check_asked6(network, pool, wish.address6)

        def record_of(address: str) -> AddressRecord:
            return beside.model_copy(update={"address": address, "link_local": ()})

        return await self._first_free(
            network, wish.address6, partial(rules.lowest_free6, network, pool), record_of
        )

    async def _first_free(
        self,
        network: NetworkRecord,
        asked: str | None,
        lowest: Callable[[set[str]], str],
        record_of: Callable[[str], AddressRecord],
    ) -> Claim:
        taken = {
            each.address for each in self._memory.addresses.values() if each.network == network.id
        }
        self._asked -= self._memory.addresses.entries.keys()
        while True:
            busy = {
                key.partition(".")[2].replace("=", ":")
                for key in self._asked
                if key.startswith(network.id)
            }
            address = asked or lowest(taken | busy)
            record = record_of(address)
            key = address_key(network.id, address)
            self._asked.add(key)
            try:
                revision = await self._memory.addresses.bucket.create(key, record)
            except ExistsError as exc:
                self._asked.discard(key)
                if asked is not None:
                    raise ForbiddenError(f"Address already in use: {address}") from exc
                taken.add(address)
            except BaseException:
                self._asked.discard(key)
                raise
            else:
                return Claim(key, revision, record)

    def mine(self, container: ContainerId, attempt: int) -> list[Claim]:
        """The container's addresses here, of this attempt or an older one, as the mirror has them."""
        return [
            claim
            for claim in self._here()
            if claim.record.container == container and claim.record.attempt <= attempt
        ]

    def every(self) -> dict[ContainerId, list[Claim]]:
        """All addresses here, by container, as the mirror has them."""
        found: dict[ContainerId, list[Claim]] = {}
        for claim in self._here():
            found.setdefault(claim.record.container, []).append(claim)
        return found

    def _here(self) -> Iterator[Claim]:
        for key, entry in self._memory.addresses.entries.items():
            if entry.value.host == self._me:
                yield Claim(key, entry.revision, entry.value)

    async def renamed(self, claim: Claim, owner: ContainerRecord) -> Claim:
        """Write an address with its container's name of now; as it was if another wrote it meanwhile."""
        names = wanted.names_now(owner, claim.record)
        if names == claim.record.names:
            return claim
        record = claim.record.model_copy(update={"names": names})
        try:
            revision = await self._memory.addresses.bucket.update(claim.key, record, claim.revision)
        except StaleError:
            return claim
        return Claim(claim.key, revision, record)

    async def give_back(self, claim: Claim) -> None:
        """Let an address go, unless another has claimed it meanwhile."""
        tag, record = self._settings.tag, claim.record
        veth = naming.veth(tag, record.container, record.network)
        await asyncio.to_thread(
            self._kernel.nft.try_run,
            firewall.delete_source(tag, veth, record.mac, record.address, *record.link_local),
        )
        self._asked.discard(claim.key)
        with contextlib.suppress(StaleError):
            await self._memory.addresses.bucket.delete(claim.key, claim.revision)
