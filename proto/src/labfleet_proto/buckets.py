"""The buckets of the fleet's memory: name, value type, and who writes them (`ARCHITECTURE.md`)."""

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

from labfleet_proto.containers import ContainerRecord, NameRecord, Observation, VolumeRecord
from labfleet_proto.host_policies import HostPolicy
from labfleet_proto.hosts import HostRecord, Lease
from labfleet_proto.ids import ContainerId, Digest, HostId, NetworkId, TenantId
from labfleet_proto.images import ManifestRecord, TagRecord
from labfleet_proto.layers import LayerCopy
from labfleet_proto.message import Message
from labfleet_proto.networks import AddressRecord, NetworkNameRecord, NetworkRecord, SubnetClaim
from labfleet_proto.registry_access import SharedRecord
from labfleet_proto.tenants import CertificateRecord, TenantRecord, TokenRecord
from labfleet_proto.upstreams import UpstreamRecord

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class BucketDef(Generic[M]):
    """A bucket with values of one type. `ttl_s` 0 means that values stay."""

    name: str
    model: type[M]
    ttl_s: int = 0


CONTAINERS = BucketDef("containers", ContainerRecord)
NAMES = BucketDef("names", NameRecord)
OBSERVED = BucketDef("observed", Observation)
HOSTS = BucketDef("hosts", HostRecord)
HOST_POLICIES = BucketDef("host_policies", HostPolicy)
LEASES = BucketDef("leases", Lease, ttl_s=15)
NETWORKS = BucketDef("networks", NetworkRecord)
NETWORK_NAMES = BucketDef("network_names", NetworkNameRecord)
SUBNETS = BucketDef("subnets", SubnetClaim)
ADDRESSES = BucketDef("addresses", AddressRecord)
VOLUMES = BucketDef("volumes", VolumeRecord)
TAGS = BucketDef("tags", TagRecord)
MANIFESTS = BucketDef("manifests", ManifestRecord)
LAYER_COPIES = BucketDef("layer_copies", LayerCopy)
TENANTS = BucketDef("tenants", TenantRecord)
TOKENS = BucketDef("tokens", TokenRecord)
CERTIFICATES = BucketDef("certificates", CertificateRecord)
UPSTREAMS = BucketDef("upstreams", UpstreamRecord)
SHARED = BucketDef("shared", SharedRecord)
LEADERS = BucketDef("leaders", Lease, ttl_s=5)
"""Key `scheduler`: who is the active one."""


def container_key(tenant: TenantId, container: ContainerId) -> str:
    """Key in `containers`."""
    return f"{tenant}.{container}"


def name_key(tenant: TenantId, name: str) -> str:
    """Key in `names`, `network_names` or `volumes`: only networks have names that need escaping.

    `.` becomes `=`; what a key may not hold is written as `/` and the hex digits of its UTF-8.
    """
    return f"{tenant}.{_UNSAFE.sub(_escape, name)}"


def _escape(found: re.Match[str]) -> str:
    return "=" if found[0] == "." else "".join(f"/{byte:02x}" for byte in found[0].encode())


def observed_key(host: HostId, container: ContainerId) -> str:
    """Key in `observed`."""
    return f"{host}.{container}"


def address_key(network: NetworkId, address: str) -> str:
    """Key in `addresses`; dots of the address stay, they are legal in keys, and `:` becomes `=`."""
    return f"{network}.{address.replace(':', '=')}"


def tag_key(repository: str, tag: str) -> str:
    """Key in `tags`: `<repository>.<tag>` with the dots of both escaped."""
    return f"{_escaped(repository)}.{tag.replace('.', '=')}"


def manifest_key(repository: str, digest: Digest) -> str:
    """Key in `manifests`: `<repository>.<hex digest>`."""
    return f"{_escaped(repository)}.{digest.removeprefix('sha256:')}"


def layer_copy_key(digest: Digest, host: HostId) -> str:
    """Key in `layer_copies`: `<hex digest>.<host>`."""
    return f"{digest.removeprefix('sha256:')}.{host}"


def shared_key(pattern: str) -> str:
    """Key in `shared`: a pattern as a repository, and `*` becomes `=2A`."""
    return _escaped(pattern).replace("*", "=2A")


def _escaped(repository: str) -> str:
    """A repository as key token: `.` becomes `=`; the `:` of a domain's port, illegal in keys, `=3A`."""
    return repository.replace(".", "=").replace(":", "=3A")
