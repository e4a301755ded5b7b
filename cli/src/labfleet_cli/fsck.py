"""The invariants of a fleet, checked on the live one: every line of the result is a leak or a lie."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from labfleet_chassis import bus as bus_module
from labfleet_chassis import logs
from labfleet_chassis.bus import Bus
from labfleet_chassis.clock import SystemClock
from labfleet_cli.fleet_plan import FleetPlan
from labfleet_proto import buckets
from labfleet_proto.buckets import BucketDef, container_key, name_key, observed_key
from labfleet_proto.builds import is_build
from labfleet_proto.containers import (
    ContainerRecord,
    Goal,
    NameRecord,
    Observation,
    State,
    VolumeRecord,
)
from labfleet_proto.errors import LabfleetError
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import OPERATORS, HostId, TenantId
from labfleet_proto.message import Message, Nothing
from labfleet_proto.networks import (
    CHECK_NETWORK,
    ENTRY,
    AddressRecord,
    NetworkNameRecord,
    NetworkRecord,
    SubnetClaim,
)
from labfleet_proto.runtime import CHECK_AGENT
from labfleet_proto.scrubbing import CHECK_IMAGES
from labfleet_proto.tenants import CertificateRecord, TenantRecord, TokenRecord

M = TypeVar("M", bound=Message)

_LIMIT_S = 30.0


@dataclass(frozen=True)
class Snapshot:
    """All buckets at one time, by key."""

    containers: Mapping[str, ContainerRecord]
    names: Mapping[str, NameRecord]
    observed: Mapping[str, Observation]
    hosts: Mapping[str, HostRecord]
    networks: Mapping[str, NetworkRecord]
    network_names: Mapping[str, NetworkNameRecord]
    subnets: Mapping[str, SubnetClaim]
    addresses: Mapping[str, AddressRecord]
    volumes: Mapping[str, VolumeRecord]
    tenants: Mapping[str, TenantRecord] = field(default_factory=dict)
    tokens: Mapping[str, TokenRecord] = field(default_factory=dict)
    certificates: Mapping[str, CertificateRecord] = field(default_factory=dict)


def check(snapshot: Snapshot) -> list[str]:
    """Findings of the fleet's memory alone. Pure."""
    return [
        *_containers(snapshot),
        *_names(snapshot),
        *_networks(snapshot),
        *_addresses(snapshot),
        *_ports(snapshot),
        *_tenants(snapshot),
    ]


def _containers(snapshot: Snapshot) -> Iterable[str]:
    for record in snapshot.containers.values():
        name = snapshot.names.get(name_key(record.tenant, record.name))
        if name is None or name.id != record.id:
            yield f"container {record.id[:12]} does not hold its name {record.name}"
        if record.assignment.host not in snapshot.hosts:
            yield f"container {record.id[:12]} is on the unknown host {record.assignment.host}"
        for mount in record.spec.mounts:
            volume = snapshot.volumes.get(name_key(record.tenant, mount.volume))
            if volume is None:
                yield f"container {record.id[:12]} uses volume {mount.volume}, which has no record"
            elif volume.home != record.assignment.host:
                yield f"container {record.id[:12]} is not on the home of volume {mount.volume}"
        seen = snapshot.observed.get(observed_key(record.assignment.host, record.id))
        if record.goal is Goal.REMOVED and seen is not None and seen.state is State.REMOVED:
            yield f"container {record.id[:12]} is removed, but its record is still there"
    for key, seen in snapshot.observed.items():
        is_recorded = container_key(seen.tenant, seen.id) in snapshot.containers
        if not is_recorded and seen.state is not State.REMOVED:  # that is kept for its exit code
            yield f"observation {key[:30]} is of a container that has no record"


def _names(snapshot: Snapshot) -> Iterable[str]:
    known = {record.id for record in snapshot.containers.values()}
    for key, name in snapshot.names.items():
        if name.id not in known:
            yield f"name {key} belongs to no container"


def _networks(snapshot: Snapshot) -> Iterable[str]:
    for key, name in snapshot.network_names.items():
        if name.id not in snapshot.networks:
            yield f"network name {key} belongs to no network"
    for key, claim in snapshot.subnets.items():
        if claim.network not in snapshot.networks:
            yield f"claim {key} belongs to no network"
    for what, values in (
        ("subnet", [network.transit or network.subnet for network in snapshot.networks.values()]),
        ("vni", [str(network.vni) for network in snapshot.networks.values()]),
    ):
        for value, count in Counter(values).items():
            if count > 1:
                yield f"{what} {value} was given out {count} times"


def _addresses(snapshot: Snapshot) -> Iterable[str]:
    running = {
        (seen.id, seen.run)
        for seen in snapshot.observed.values()
        if seen.state in (State.CREATED, State.RUNNING, State.STOPPING, State.PREPARING)
    }
    for key, record in snapshot.addresses.items():
        is_known = is_build(record.container) or (record.container, record.attempt) in running
        if not is_known:
            yield f"address {record.address} of {record.container[:12]} is held by no running container"
        if record.network not in snapshot.networks:
            yield f"address {key[-15:]} is in an unknown network"


def _ports(snapshot: Snapshot) -> Iterable[str]:
    taken: Counter[tuple[str, int]] = Counter()
    for record in snapshot.containers.values():
        seen = snapshot.observed.get(observed_key(record.assignment.host, record.id))
        if seen is not None and seen.state is State.RUNNING:
            for port in record.spec.ports:
                taken[port.protocol, port.host_port or 0] += 1
    for (protocol, number), count in taken.items():
        if count > 1:
            yield f"port {number}/{protocol} leads to {count} running containers"


def _tenants(snapshot: Snapshot) -> Iterable[str]:
    kinds: tuple[tuple[str, Iterable[TenantId]], ...] = (
        ("containers", (each.tenant for each in snapshot.containers.values())),
        ("volumes", (each.tenant for each in snapshot.volumes.values())),
        ("networks", (each.tenant for each in snapshot.networks.values())),
        ("tokens", (each.tenant for each in snapshot.tokens.values())),
        ("certificates", (each.tenant for each in snapshot.certificates.values())),
    )
    known = {OPERATORS, *snapshot.tenants}
    for kind, owners in kinds:
        for owner, count in Counter(owners).items():
            if owner not in known:
                yield f"{count} {kind} belong to {owner}, who is no tenant"


async def examine(plan: FleetPlan) -> list[str]:
    """Check a live fleet: its memory, and every host's own findings."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    async with (
        asyncio.timeout(_LIMIT_S),
        bus_module.connect(
            plan.nats_url,
            plan.choices.nats_token,
            name="labfleet-fsck",
            clock=SystemClock(),
            log=logs.get("fsck"),
        ) as bus,
    ):
        snapshot = await _snapshot(bus)
        findings = check(snapshot)
        for host in (*sorted(snapshot.hosts), ENTRY):
            findings += await _ask(bus, HostId(host))
        findings += await _ask_images(bus)
    return findings


async def _snapshot(bus: Bus) -> Snapshot:
    return Snapshot(
        containers=await _values(bus, buckets.CONTAINERS),
        names=await _values(bus, buckets.NAMES),
        observed=await _values(bus, buckets.OBSERVED),
        hosts=await _values(bus, buckets.HOSTS),
        networks=await _values(bus, buckets.NETWORKS),
        network_names=await _values(bus, buckets.NETWORK_NAMES),
        subnets=await _values(bus, buckets.SUBNETS),
        addresses=await _values(bus, buckets.ADDRESSES),
        volumes=await _values(bus, buckets.VOLUMES),
        tenants=await _values(bus, buckets.TENANTS),
        tokens=await _values(bus, buckets.TOKENS),
        certificates=await _values(bus, buckets.CERTIFICATES),
    )


async def _values(bus: Bus, definition: BucketDef[M]) -> dict[str, M]:
    return await (await bus.bucket(definition)).values()


async def _ask(bus: Bus, host: HostId) -> list[str]:
    """A host's own findings; its silence is one too."""
    found: tuple[str, ...] = ()
    try:
        answer = await bus.call(CHECK_NETWORK, Nothing(), tenant=OPERATORS, subject=host, host=host)
        found = answer.findings
        if host != ENTRY:
            own = await bus.call(CHECK_AGENT, Nothing(), tenant=OPERATORS, subject=host, host=host)
            found += own.findings
    except LabfleetError as exc:
        found += (exc.message,)
    return [f"{host}: {text}" for text in found]


async def _ask_images(bus: Bus) -> list[str]:
    """What the image store says of its blobs; its silence is a finding, too."""
    try:
        answer = await bus.call(CHECK_IMAGES, Nothing(), tenant=OPERATORS, subject="blobs")
    except LabfleetError as exc:
        return [f"image-store: {exc.message}"]
    return [f"image-store: {text}" for text in answer.findings]
