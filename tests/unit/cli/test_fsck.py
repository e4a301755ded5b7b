"""The invariants: a clean fleet has no finding, and each defect has exactly its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.proto.records import (
    HOST,
    TENANT,
    address_record,
    container_id,
    container_record,
    container_spec,
    network_id,
    network_record,
    observation,
)

from labfleet_cli.fsck import Snapshot, check
from labfleet_proto.buckets import (
    address_key,
    container_key,
    name_key,
    observed_key,
)
from labfleet_proto.containers import (
    Assignment,
    ContainerRecord,
    Goal,
    NameRecord,
    PortBinding,
    State,
    VolumeMount,
    VolumeRecord,
)
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import HostId, TenantId
from labfleet_proto.networks import NetworkNameRecord, SubnetClaim
from labfleet_proto.resources import Resources
from labfleet_proto.tenants import TenantRecord, TokenRecord

OTHER = HostId("h2")


def host(name: HostId) -> HostRecord:
    return HostRecord(
        id=name,
        address="192.0.2.1",
        data_port=1,
        capacity=Resources(),
        free=Resources(),
        cores=1,
        total_memory_bytes=1,
        boot_id="b",
        updated_at_ns=0,
    )


def web(number: int, port: int, **fields: Any) -> ContainerRecord:
    spec = container_spec(
        ports=(PortBinding(container_port=80, host_port=port),),
        mounts=(VolumeMount(volume="data", target="/data"),),
    )
    return container_record(number, **{"spec": spec, "goal": Goal.RUNNING, "attempt": 1, **fields})


def clean() -> Snapshot:
    """Two running containers that share a volume and a network, and one that has exited."""
    records = [web(1, 8080), web(2, 8081), container_record(3, goal=Goal.STOPPED, attempt=1)]
    states = [State.RUNNING, State.RUNNING, State.EXITED]
    return Snapshot(
        containers={container_key(TENANT, each.id): each for each in records},
        names={
            name_key(TENANT, each.name): NameRecord(id=each.id, created_at_ns=0) for each in records
        },
        observed={
            observed_key(HOST, each.id): observation(state, number=number)
            for number, (each, state) in enumerate(zip(records, states, strict=True), 1)
        },
        hosts={HOST: host(HOST), OTHER: host(OTHER)},
        networks={network_id(1): network_record(1)},
        network_names={name_key(TENANT, "net1"): NetworkNameRecord(id=network_id(1))},
        subnets={
            "net.10.100.1.0-24": SubnetClaim(network=network_id(1)),
            "vni.1": SubnetClaim(network=network_id(1)),
        },
        addresses={
            address_key(network_id(1), f"10.100.1.{number}"): address_record(
                f"10.100.1.{number}", number=number
            )
            for number in (1, 2)
        },
        volumes={
            name_key(TENANT, "data"): VolumeRecord(
                tenant=TENANT, name="data", home=HOST, created_at_ns=0
            )
        },
        tenants={TENANT: TenantRecord(id=TENANT, created_at_ns=0)},
    )


def plant(bucket: str, key: str, value: object) -> Callable[[Snapshot], Snapshot]:
    """Put a value into a bucket; None takes it out."""

    def planted(snapshot: Snapshot) -> Snapshot:
        there = {**getattr(snapshot, bucket), key: value}
        return replace(
            snapshot, **{bucket: {name: each for name, each in there.items() if each is not None}}
        )

    return planted


def test_a_clean_fleet_has_no_finding() -> None:
    assert check(clean()) == []


FIRST = container_id(1)[:12]
SECOND = container_key(TENANT, container_id(2))
MOVED = Assignment(host=HostId("nosuch"), epoch=1, reason="test")

DEFECTS = {
    "a name that is gone": (
        plant("names", name_key(TENANT, "c1"), None),
        f"container {FIRST} does not hold its name c1",
    ),
    "a container on an unknown host": (
        plant(
            "containers",
            container_key(TENANT, container_id(3)),
            container_record(3, assignment=MOVED),
        ),
        f"container {container_id(3)[:12]} is on the unknown host nosuch",
    ),
    "a removal that never ended": (
        lambda s: plant(
            "observed", observed_key(HOST, container_id(3)), observation(State.REMOVED, number=3)
        )(
            plant(
                "containers",
                container_key(TENANT, container_id(3)),
                container_record(3, goal=Goal.REMOVED),
            )(s)
        ),
        f"container {container_id(3)[:12]} is removed, but its record is still there",
    ),
    "an observation that stayed": (
        plant("observed", observed_key(HOST, container_id(9)), observation(State.EXITED, number=9)),
        f"observation {observed_key(HOST, container_id(9))[:30]} is of a container that has no record",
    ),
    "a token of nobody": (
        plant(
            "tokens",
            "0" * 12,
            TokenRecord(
                id="0" * 12,
                tenant=TenantId("gone"),
                secret_sha256="",
                scopes=(),
                created_at_ns=0,
            ),
        ),
        "1 tokens belong to gone, who is no tenant",
    ),
    "a name that stayed": (
        plant("names", name_key(TENANT, "left"), NameRecord(id=container_id(9), created_at_ns=0)),
        f"name {name_key(TENANT, 'left')} belongs to no container",
    ),
    "a network's name that stayed": (
        plant("network_names", name_key(TENANT, "left"), NetworkNameRecord(id=network_id(9))),
        f"network name {name_key(TENANT, 'left')} belongs to no network",
    ),
    "a claim that stayed": (
        plant("subnets", "vni.9", SubnetClaim(network=network_id(9))),
        "claim vni.9 belongs to no network",
    ),
    "a subnet given out twice": (
        plant("networks", network_id(2), network_record(2, subnet="10.100.1.0/24")),
        "subnet 10.100.1.0/24 was given out 2 times",
    ),
    "a vni given out twice": (
        plant("networks", network_id(2), network_record(2, vni=1)),
        "vni 1 was given out 2 times",
    ),
    "an address of an earlier attempt": (
        plant(
            "addresses",
            address_key(network_id(1), "10.100.1.9"),
            address_record("10.100.1.9", attempt=0),
        ),
        f"address 10.100.1.9 of {FIRST} is held by no running container",
    ),
    "an address of a container that has exited": (
        plant(
            "addresses",
            address_key(network_id(1), "10.100.1.3"),
            address_record("10.100.1.3", number=3),
        ),
        f"address 10.100.1.3 of {container_id(3)[:12]} is held by no running container",
    ),
    "an address in a network that is gone": (
        plant(
            "addresses",
            address_key(network_id(9), "10.100.9.1"),
            address_record("10.100.9.1", network=9),
        ),
        f"address {address_key(network_id(9), '10.100.9.1')[-15:]} is in an unknown network",
    ),
    "a port that leads to two": (
        plant("containers", SECOND, web(2, 8080)),
        "port 8080/tcp leads to 2 running containers",
    ),
}


@pytest.mark.parametrize(("defect", "finding"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_found_by_its_own_words(
    defect: Callable[[Snapshot], Snapshot], finding: str
) -> None:
    assert check(defect(clean())) == [finding]


def test_a_volume_that_is_gone_is_found_at_each_of_its_users() -> None:
    findings = check(plant("volumes", name_key(TENANT, "data"), None)(clean()))
    assert findings == [
        f"container {container_id(number)[:12]} uses volume data, which has no record"
        for number in (1, 2)
    ]


def test_a_container_away_from_the_home_of_its_volume_is_found() -> None:
    volume = VolumeRecord(tenant=TENANT, name="data", home=OTHER, created_at_ns=0)
    findings = check(plant("volumes", name_key(TENANT, "data"), volume)(clean()))
    assert findings == [
        f"container {container_id(number)[:12]} is not on the home of volume data"
        for number in (1, 2)
    ]


def test_a_name_that_another_holds_is_found() -> None:
    stolen = NameRecord(id=container_id(2), created_at_ns=0)
    findings = check(plant("names", name_key(TENANT, "c1"), stolen)(clean()))
    assert findings == [f"container {FIRST} does not hold its name c1"]


def test_the_same_port_of_another_protocol_is_no_defect() -> None:
    binding = PortBinding(container_port=80, host_port=8080, protocol="udp")
    spec = web(2, 0).spec.model_copy(update={"ports": (binding,)})
    assert check(plant("containers", SECOND, web(2, 0, spec=spec))(clean())) == []


def test_a_container_that_is_being_prepared_may_hold_an_address() -> None:
    starting = observation(State.PREPARING, number=1)
    assert check(plant("observed", observed_key(HOST, container_id(1)), starting)(clean())) == []
