"""Networks: names, address ranges and VNIs, each claimed by a create-only key."""

import asyncio
import random
import secrets
from ipaddress import IPv4Network
from typing import Any

from labfleet_api.core import lookup, subnets
from labfleet_api.core.names import checked_network_name
from labfleet_api.core.network_views import endpoint_id
from labfleet_api.core.place_bodies import NetworkBody
from labfleet_api.core.times import rfc3339
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
from labfleet_proto.ids import NetworkId
from labfleet_proto.networks import NetworkNameRecord, NetworkRecord, SubnetClaim

DEFAULT = "bridge"
"""The tenant's own default network; made when it is first needed."""
_MAKE_LIMIT_S = 10.0
_RESERVED = ("bridge", "none", "host", "default", "container")
_DRIVERS = ("", "bridge", "overlay", "default")


class Networks:
    """The tenant's networks."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._choice = random.SystemRandom()

    async def attachments(
        self, wanted: dict[str, tuple[tuple[str, ...], str | None]]
    ) -> tuple[NetworkAttachment, ...]:
        """Resolve the networks of a create request; the empty name is the default network."""
        found = []
        for name, (aliases, address) in wanted.items():
            record = await self.default() if not name else self.find(name)
            found.append(
                NetworkAttachment(
                    network_id=record.id,
                    network_name=record.name,
                    aliases=aliases,
                    address=address,
                )
            )
        return tuple(found)

    def find(self, text: str) -> NetworkRecord:
        """Find by id, name or prefix. Raises NotFoundError, InvalidRequestError."""
        return lookup.find_network(text, self._fleet.networks())

    async def default(self) -> NetworkRecord:
        """Return the default network, making it if it is not there."""
        for record in self._fleet.networks():
            if record.name == DEFAULT:
                return record
        try:
            return await self._make(DEFAULT, None, NetworkBody(Name=DEFAULT))
        except ConflictError:  # another request makes it right now
            return await self._await_default()

    async def _await_default(self) -> NetworkRecord:
        entry = await self._fleet.memory.network_names.get(name_key(self._fleet.tenant, DEFAULT))
        record = None
        if entry is not None:
            record = await self._fleet.memory.networks.bucket.get(entry.value.id)
        if record is None:
            raise UnavailableError("the default network is being made, try again")
        return record.value

    async def create(self, body: NetworkBody) -> NetworkRecord:
        """Make a network. Raises ConflictError (name taken), InvalidRequestError."""
        body.refuse_unserved()
        name = checked_network_name(body.Name)
        if name in _RESERVED:
            raise ForbiddenError(f"operation is not permitted on predefined {name} network")
        if body.Driver not in _DRIVERS:
            raise InvalidRequestError(
                f"network driver {body.Driver}: this fleet has one, named bridge or overlay"
            )
        if body.EnableIPv4 is False or body.Options:
            raise NotImplementedYetError(
                "labfleet: networks without IPv4, and options of networks, are not there yet"
            )
        pools = (body.IPAM.Config if body.IPAM else None) or []
        asked = None
        for pool in pools:
            if len(pools) > 1 or pool.IPRange or pool.Gateway:
                raise NotImplementedYetError(
                    "labfleet: IPAM.Config: IPRange, Gateway and several pools are not there yet"
                )
            asked = subnets.asked_subnet(pool.Subnet) if pool.Subnet else None
        record = await self._make(name, asked, body)
        await self._fleet.emit("network", "create", record.id, {"name": name, "type": "bridge"})
        return record

    async def _make(self, name: str, asked: IPv4Network | None, body: NetworkBody) -> NetworkRecord:
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
        asked: IPv4Network | None,
        body: NetworkBody,
        claims: list[str],
    ) -> NetworkRecord:
        """Claim address range and VNI, noting them in `claims`, and store the network."""
        fleet = self._fleet
        subnet = await self._claim_subnet(network, asked, claims)
        vni = await self._claim_vni(network, claims)
        record = NetworkRecord(
            id=network,
            tenant=fleet.tenant,
            name=name,
            vni=vni,
            subnet=str(subnet),
            gateway=subnets.gateway(subnet),
            is_internal=body.Internal,
            labels=body.Labels or {},
            created_at_ns=fleet.clock.now_ns(),
        )
        revision = await fleet.memory.networks.bucket.create(network, record)
        await fleet.memory.networks.wait_for(revision)
        return record

    async def _claim_subnet(
        self, network: NetworkId, asked: IPv4Network | None, claims: list[str]
    ) -> IPv4Network:
        taken = {record.subnet for record in self._fleet.memory.networks.values()}
        options = (
            [asked] if asked else subnets.candidates(taken, self._choice.randrange(subnets.COUNT))
        )
        for option in options:
            key = subnets.subnet_key(option)
            try:
                await self._fleet.memory.subnets.create(key, SubnetClaim(network=network))
            except ExistsError:
                continue
            claims.append(key)
            return option
        if asked:
            raise ForbiddenError(
                f"invalid pool request: Pool overlaps with other one on this address space: {asked}"
            )
        raise ConflictError(f"no /{subnets.PREFIX} of {subnets.POOL} is free")

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

    async def remove(self, record: NetworkRecord) -> None:
        """Remove a network that no running container uses. Raises ForbiddenError."""
        if record.name == DEFAULT:
            raise ForbiddenError(f"{DEFAULT} is a pre-defined network and cannot be removed")
        users = [
            f'name:"{each["Name"]}" id:"{endpoint[:12]}"'
            for endpoint, each in self.members(record).items()
        ]
        if users:
            raise ForbiddenError(
                f"error while removing network: network {record.name} has active endpoints "
                f"({', '.join(users)})"
            )
        memory = self._fleet.memory
        await memory.networks.bucket.delete(record.id)
        await memory.subnets.delete(subnets.subnet_key(IPv4Network(record.subnet)))
        await memory.subnets.delete(subnets.vni_key(record.vni))
        await memory.network_names.delete(name_key(record.tenant, record.name))
        while record.id in memory.networks.entries:
            await memory.networks.changed()
        await self._fleet.emit(
            "network", "destroy", record.id, {"name": record.name, "type": "bridge"}
        )

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
                        "IPv6Address": "",
                    }
        return found

    def view(self, record: NetworkRecord, *, with_members: bool) -> dict[str, Any]:
        """One network in docker's shape."""
        return {
            "Name": record.name,
            "Id": record.id,
            "Created": rfc3339(record.created_at_ns),
            "Scope": "local",
            "Driver": "bridge",
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {
                "Driver": "default",
                "Options": None,
                "Config": [{"Subnet": record.subnet, "Gateway": record.gateway}],
            },
            "Internal": record.is_internal,
            "Attachable": True,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": self.members(record) if with_members else {},
            "Options": {"labfleet.vni": str(record.vni)},
            "Labels": record.labels,
        }

    def require(self, text: str) -> NetworkRecord:
        """Find a network for a route, in docker's words. Raises NotFoundError."""
        try:
            return self.find(text)
        except NotFoundError as exc:
            raise NotFoundError(f"network {text} not found") from exc
