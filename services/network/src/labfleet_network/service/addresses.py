"""Addresses of this host's containers: claimed by a create-only write, given back at their revision."""

import asyncio
import contextlib
from dataclasses import dataclass

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
from labfleet_proto.networks import AddressRecord, AllocateInterface, InterfaceWish, NetworkRecord


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
        taken = {
            each.address for each in self._memory.addresses.values() if each.network == network.id
        }
        self._asked -= self._memory.addresses.entries.keys()
        while True:
            busy = {key.partition(".")[2] for key in self._asked if key.startswith(network.id)}
            address = wish.address or rules.lowest_free(network, taken | busy)
            record = AddressRecord(
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
            key = address_key(network.id, address)
            self._asked.add(key)
            try:
                revision = await self._memory.addresses.bucket.create(key, record)
            except ExistsError as exc:
                self._asked.discard(key)
                if wish.address is not None:
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
            Claim(key, entry.revision, entry.value)
            for key, entry in self._memory.addresses.entries.items()
            if entry.value.container == container
            and entry.value.host == self._me
            and entry.value.attempt <= attempt
        ]

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
