"""Networks: names, address ranges and VNIs, each claimed by a create-only key."""

import asyncio
import random
import secrets
from ipaddress import IPv4Network
from typing import Any

from labfleet_api.core import lookup, network_documents, subnets, subnets6
from labfleet_api.core.attachments import EndpointWish, parse_link
from labfleet_api.core.names import checked_network_name
from labfleet_api.core.network_documents import PREDEFINED
from labfleet_api.core.network_views import endpoint_id
from labfleet_api.core.place_bodies import NetworkBody
from labfleet_api.core.subnets import Addressing
from labfleet_api.service.fleet import Fleet
from labfleet_chassis.store import ExistsError
from labfleet_proto.buckets import name_key
from labfleet_proto.containers import NetworkAttachment, State
from labfleet_proto.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    LabfleetError,
    NotFoundError,
    NotImplementedYetError,
    UnavailableError,
)
from labfleet_proto.ids import OPERATORS, NetworkId
from labfleet_proto.networks import DEFAULT_NETWORK, NetworkNameRecord, NetworkRecord, SubnetClaim

_MAKE_LIMIT_S = 10.0
_RESERVED = (*PREDEFINED, "default", "container")
_DRIVERS = ("", "bridge", "overlay", "default")
_REFUSED_DRIVERS = ("macvlan", "ipvlan", "host", "null")


class Networks:
    """The tenant's networks."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._choice = random.SystemRandom()

    # -- find

    async def attachments(self, wanted: dict[str, EndpointWish]) -> tuple[NetworkAttachment, ...]:
        """Resolve the networks of a create request; the empty name is the default network.

        Raises InvalidRequestError: of a 404 the client thinks that it means the image, and fetches that.
        """
        found = []
        for name, wish in wanted.items():
            try:
                record = await self.default() if not name else self.find(name)
            except NotFoundError as exc:
                raise InvalidRequestError(exc.message) from exc
            found.append(self.attachment(record, wish))
        return tuple(found)

    def attachment(self, record: NetworkRecord, wish: EndpointWish) -> NetworkAttachment:
        """What a container's record says of a network. Raises InvalidRequestError."""
        if wish.address is not None:
            subnets.check_endpoint(record, wish.address)
        address6 = subnets6.check_endpoint(record, wish.address6) if wish.address6 else None
        links = {alias.lower(): name for name, alias in map(parse_link, wish.links)}
        return NetworkAttachment(
            network_id=record.id,
            network_name=record.name,
            aliases=wish.aliases,
            address=wish.address,
            address6=address6,
            mac=wish.mac,
            links=links,
            driver_opts=wish.driver_opts,
            link_local=wish.link_local,
            gateway_priority=wish.gateway_priority,
        )

    def find(self, text: str) -> NetworkRecord:
        """Find by id, name or prefix. Raises NotFoundError, InvalidRequestError."""
        return lookup.find_network(text, self._fleet.networks())

    async def default(self) -> NetworkRecord:
        """Return the default network, making it if it is not there."""
        for record in self._fleet.networks():
            if record.name == DEFAULT_NETWORK:
                return record
        wide = self._fleet.tenant == OPERATORS  # a class of many tenants has a network for each
        size = subnets.DEFAULT_PREFIX if wide else subnets.PREFIX
        try:
            return await self._make(
                DEFAULT_NETWORK, Addressing(prefix=size), NetworkBody(Name=DEFAULT_NETWORK)
            )
        except ConflictError:  # another request makes it right now
            return await self._await_default()

    async def _await_default(self) -> NetworkRecord:
        entry = await self._fleet.memory.network_names.get(
            name_key(self._fleet.tenant, DEFAULT_NETWORK)
        )
        record = None
        if entry is not None:
            record = await self._fleet.memory.networks.bucket.get(entry.value.id)
        if record is None:
            raise UnavailableError("the default network is being made, try again")
        return record.value

    # -- create

    async def create(self, body: NetworkBody) -> NetworkRecord:
        """Make a network. Raises ConflictError (name taken), InvalidRequestError, ForbiddenError."""
        body.refuse_unserved()
        name = checked_network_name(body.Name)
        if name in _RESERVED:
            raise ForbiddenError(f"operation is not permitted on predefined {name} network")
        if body.Driver in _REFUSED_DRIVERS:
            raise ForbiddenError(
                f"network driver {body.Driver}: a network of a fleet is of driver bridge or overlay"
            )
        if body.Driver not in _DRIVERS:
            raise NotFoundError(f'plugin "{body.Driver}" not found')
        ipam_driver = body.IPAM.Driver if body.IPAM else ""
        if ipam_driver not in ("", "default"):
            raise NotFoundError(f'plugin "{ipam_driver}" not found')
        if body.Scope not in ("", "local"):
            raise ForbiddenError(f"network scope {body.Scope}: there is no swarm mode")
        if body.EnableIPv4 is False:
            raise NotImplementedYetError("labfleet: networks without IPv4 are not there yet")
        asked = subnets.asked((body.IPAM.Config if body.IPAM else None) or [])
        subnets.refuse_overlap(asked.subnet, asked.ipv6, self._fleet.networks())
        record = await self._make(name, asked, body)
        await self._tell(record, "create")
        return record

    async def _tell(self, record: NetworkRecord, action: str) -> None:
        about = {"name": record.name, "type": record.driver}
        await self._fleet.emit("network", action, record.id, about)

    async def _make(self, name: str, asked: Addressing, body: NetworkBody) -> NetworkRecord:
        fleet = self._fleet
        network = NetworkId(secrets.token_hex(32))
        key = name_key(fleet.tenant, name)
        try:
            await fleet.memory.network_names.create(key, NetworkNameRecord(id=network))
        except ExistsError as exc:
            raise ConflictError(f"network with name {name} already exists") from exc
        claims: list[str] = []
        try:
            async with asyncio.timeout(_MAKE_LIMIT_S):
                return await self._record(network, name, asked, body, claims)
        except TimeoutError as exc:
            raise UnavailableError(f"network {name} was not made in {_MAKE_LIMIT_S:g} s") from exc
        except UnavailableError:
            raise  # it may be there: claims that have no network are given back later
        except LabfleetError:
            for claim in claims:
                await fleet.memory.subnets.delete(claim)
            await fleet.memory.network_names.delete(key)
            raise

    async def _record(
        self,
        network: NetworkId,
        name: str,
        asked: Addressing,
        body: NetworkBody,
        claims: list[str],
    ) -> NetworkRecord:
        """Claim address range and VNI, noting them in `claims`, and store the network."""
        fleet = self._fleet
        of_pool = await self._claim_subnet(network, claims, asked.prefix)
        vni = await self._claim_vni(network, claims)
        with_router = asked.subnet is not None or bool(body.EnableIPv6)
        subnet = asked.subnet or of_pool
        if with_router and asked.subnet is None:
            subnet = await self._claim_subnet(network, claims)
        ipv6 = asked.ipv6
        if body.EnableIPv6 and ipv6 is None:
            ipv6 = subnets6.own_pool(vni)
        record = NetworkRecord(
            id=network,
            tenant=fleet.tenant,
            name=name,
            vni=vni,
            subnet=str(subnet),
            gateway=asked.gateway or subnets.gateway(subnet, asked.ip_range),
            is_internal=body.Internal,
            labels=body.Labels or {},
            created_at_ns=fleet.clock.now_ns(),
            transit=str(of_pool) if with_router else "",
            ip_range=asked.ip_range,
            aux_addresses=asked.aux_addresses,
            driver="overlay" if body.Driver == "overlay" else "bridge",
            options=body.Options or {},
            ipam_options=(body.IPAM.Options if body.IPAM else None) or {},
            is_attachable=body.Attachable,
            ipv6=ipv6,
            has_ipv6=bool(body.EnableIPv6),
        )
        revision = await fleet.memory.networks.bucket.create(network, record)
        await fleet.memory.networks.wait_for(revision)
        await self._refuse_later(record, revision)
        return record

    async def _refuse_later(self, record: NetworkRecord, revision: int) -> None:
        """Of two networks made at once with the same addresses, the later gives way.

        What was written before is in the mirror now, since this network is. Raises ForbiddenError.
        """
        entries = self._fleet.memory.networks.entries.values()
        earlier = [
            entry.value
            for entry in entries
            if entry.value.tenant == record.tenant and entry.revision < revision
        ]
        try:
            subnets.refuse_overlap(IPv4Network(record.subnet), record.ipv6, earlier)
        except ForbiddenError:
            await self._fleet.memory.networks.bucket.delete(record.id)
            raise

    async def _claim_subnet(
        self, network: NetworkId, claims: list[str], prefix: int = subnets.PREFIX
    ) -> IPv4Network:
        """A subnet of the pool that no other network has, nor lies in one of the tenant's own."""
        everybodys = self._fleet.memory.networks.values()
        taken = {part for each in everybodys for part in subnets.parts(each.transit or each.subnet)}
        own = [IPv4Network(each.subnet) for each in self._fleet.networks()]
        for option in subnets.candidates(taken, self._choice.randrange(subnets.COUNT), prefix):
            if any(option.overlaps(each) for each in own):
                continue
            if await self._claim_parts(network, claims, option):
                return option
        raise ConflictError(f"no /{prefix} of {subnets.POOL} is free")

    async def _claim_parts(
        self, network: NetworkId, claims: list[str], option: IPv4Network
    ) -> bool:
        """Claim a whole subnet; False if another has a part of it."""
        bucket = self._fleet.memory.subnets
        mine: list[str] = []
        for part in subnets.parts(str(option)):
            key = subnets.subnet_key(part)
            try:
                await bucket.create(key, SubnetClaim(network=network))
            except ExistsError:
                for each in mine:
                    claims.remove(each)
                    await bucket.delete(each)
                return False
            mine.append(key)
            claims.append(key)
        return True

    async def _claim_vni(self, network: NetworkId, claims: list[str]) -> int:
        while True:
            vni = self._choice.randint(1, subnets.LARGEST_VNI)
            key = subnets.vni_key(vni)
            try:
                await self._fleet.memory.subnets.create(key, SubnetClaim(network=network))
            except ExistsError:
                continue
            claims.append(key)
            return vni

    # -- remove

    async def remove(self, record: NetworkRecord) -> None:
        """Remove a network that no running container uses. Raises ForbiddenError."""
        if record.name == DEFAULT_NETWORK:
            raise ForbiddenError(
                f"{DEFAULT_NETWORK} is a pre-defined network and cannot be removed"
            )
        users = [
            f'name:"{each["Name"]}" id:"{endpoint[:12]}"'
            for endpoint, each in self.members(record).items()
        ]
        if users:
            raise ForbiddenError(
                f"error while removing network: network {record.name} has active endpoints "
                f"({', '.join(users)})"
            )
        await self.drop(record)

    async def drop(self, record: NetworkRecord) -> None:
        """Take a network away that nobody uses, with all that it claimed."""
        memory = self._fleet.memory
        await memory.networks.bucket.delete(record.id)
        ways = [record.transit, record.subnet] if record.transit else subnets.parts(record.subnet)
        for of_pool in ways:
            await self._give_back(subnets.subnet_key(of_pool), record.id)
        await memory.subnets.delete(subnets.vni_key(record.vni))
        await memory.network_names.delete(name_key(record.tenant, record.name))
        while record.id in memory.networks.entries:
            await memory.networks.changed()
        await self._tell(record, "destroy")

    async def _give_back(self, key: str, network: NetworkId) -> None:
        """Give a claim back, if it is the network's: a subnet that the client chose is nobody's."""
        entry = await self._fleet.memory.subnets.get(key)
        if entry is not None and entry.value.network == network:
            await self._fleet.memory.subnets.delete(key)

    # -- show

    def members(self, record: NetworkRecord) -> dict[str, dict[str, Any]]:
        """Running containers of a network, as inspect shows them."""
        found: dict[str, dict[str, Any]] = {}
        for container in self._fleet.records():
            seen = self._fleet.seen(container)
            if seen is None or seen.state not in (State.CREATED, State.RUNNING, State.STOPPING):
                continue
            for endpoint in seen.endpoints:
                if endpoint.network == record.id:
                    found[container.id] = {
                        "Name": container.name,
                        "EndpointID": endpoint_id(container.id, record.id),
                        "MacAddress": endpoint.mac,
                        "IPv4Address": f"{endpoint.address}/{endpoint.prefix_len}",
                        "IPv6Address": (
                            f"{endpoint.address6}/{endpoint.prefix_len6}"
                            if endpoint.address6
                            else ""
                        ),
                    }
        return found

    def view(self, record: NetworkRecord, *, with_members: bool) -> dict[str, Any]:
        """One network in docker's shape."""
        members = self.members(record) if with_members else {}
        return network_documents.network_document(record, members)

    def require(self, text: str) -> NetworkRecord:
        """Find a network for a route, in docker's words. Raises NotFoundError."""
        try:
            return self.find(text)
        except NotFoundError as exc:
            raise NotFoundError(f"network {text} not found") from exc
