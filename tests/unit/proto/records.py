"""Plain records for unit tests: each builder needs only what its test is about."""

from typing import Any

from labfleet_proto.containers import (
    Assignment,
    ContainerRecord,
    ContainerSpec,
    Goal,
    Limits,
    Observation,
    State,
)
from labfleet_proto.ids import ContainerId, Digest, HostId, NetworkId, TenantId
from labfleet_proto.images import ImagePin
from labfleet_proto.networks import AddressRecord, NetworkRecord

TENANT = TenantId("ann")
HOST = HostId("h1")
MEMORY_BYTES = 64 << 20
CPU_MILLIS = 500
PIDS = 128

IMAGE = ImagePin(
    reference="busybox",
    image_id=Digest("sha256:" + "1" * 64),
    repository="busybox",
    manifest_digest=Digest("sha256:" + "2" * 64),
    layers=(),
)


def container_id(number: int) -> ContainerId:
    """The id of a test's `number`th container."""
    return ContainerId(f"{number:064x}")


def network_id(number: int) -> NetworkId:
    """The id of a test's `number`th network; it differs in its first digits, as real ids do."""
    return NetworkId(f"{number:08x}" * 8)


def limits(**fields: Any) -> Limits:
    """Limits with small defaults."""
    given = {"memory_bytes": MEMORY_BYTES, "cpu_millis": CPU_MILLIS, "pids": PIDS}
    return Limits(**{**given, **fields})


def container_spec(**fields: Any) -> ContainerSpec:
    """A spec that runs `sh`."""
    given: dict[str, Any] = {
        "entrypoint": (),
        "command": ("sh",),
        "env": (),
        "hostname": "web",
        "limits": limits(),
    }
    return ContainerSpec(**{**given, **fields})


def container_record(number: int = 1, **fields: Any) -> ContainerRecord:
    """The record of the `number`th container, on `HOST`, never started."""
    given: dict[str, Any] = {
        "id": container_id(number),
        "tenant": TENANT,
        "name": f"c{number}",
        "spec": container_spec(),
        "image": IMAGE,
        "created_at_ns": 0,
        "assignment": Assignment(host=HOST, epoch=1, reason="test"),
        "goal": Goal.CREATED,
    }
    return ContainerRecord(**{**given, **fields})


def observation(state: State, attempt: int = 1, number: int = 1, **fields: Any) -> Observation:
    """What `HOST` says of the `number`th container."""
    given: dict[str, Any] = {
        "id": container_id(number),
        "tenant": TENANT,
        "host": HOST,
        "generation": 1,
    }
    return Observation(**{**given, **fields}, attempt=attempt, state=state)


def network_record(number: int = 1, **fields: Any) -> NetworkRecord:
    """A network 10.100.<number>.0/24."""
    given: dict[str, Any] = {
        "id": network_id(number),
        "tenant": TENANT,
        "name": f"net{number}",
        "vni": number,
        "subnet": f"10.100.{number}.0/24",
        "gateway": f"10.100.{number}.1",
        "created_at_ns": 0,
    }
    return NetworkRecord(**{**given, **fields})


def address_record(address: str, network: int = 1, number: int = 1, **fields: Any) -> AddressRecord:
    """An address of the `number`th container in the `network`th network, on `HOST`."""
    given: dict[str, Any] = {
        "network": network_id(network),
        "address": address,
        "mac": "02:42:00:00:00:01",
        "host": HOST,
        "vtep": "192.0.2.1",
        "tenant": TENANT,
        "container": container_id(number),
        "attempt": 1,
        "names": (f"c{number}",),
    }
    return AddressRecord(**{**given, **fields})
