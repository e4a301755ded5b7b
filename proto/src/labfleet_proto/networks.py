"""Networks, addresses and what agents ask of the network service on their host."""

from labfleet_proto.ids import ContainerId, HostId, NetworkId, TenantId
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message, Nothing

ADDRESS_POOL = "10.100.0.0/14"
"""All networks of a fleet take their addresses from here; none of them may leave a host unmasked."""


class NetworkRecord(Message):
    """Value of bucket `networks`, key `<network id>`; created and removed by the api."""

    id: NetworkId
    tenant: TenantId
    name: str
    vni: int
    """VXLAN network identifier, 24 bits (RFC 7348); unique in the fleet."""
    subnet: str
    """CIDR. No two networks of the fleet overlap."""
    gateway: str
    """First address by default; the same on every host, and the DNS server's."""
    is_internal: bool = False
    """No way out of the network."""
    labels: dict[str, str] = {}
    created_at_ns: int


class NetworkNameRecord(Message):
    """Value of bucket `network_names`, key `<tenant>.<name>`; create-only, so names are unique."""

    id: NetworkId


class SubnetClaim(Message):
    """Value of bucket `subnets`, key `vni.<vni>` or `net.<address>-<prefix>`; create-only."""

    network: NetworkId


class AddressRecord(Message):
    """Value of bucket `addresses`, key `<network id>.<ip>`; created by the network service of the host.

    It is everything that DNS, forwarding and neighbour entries of the other hosts need.
    """

    network: NetworkId
    address: str
    mac: str
    host: HostId
    vtep: str
    """Underlay address of the host."""
    tenant: TenantId
    container: ContainerId
    attempt: int
    names: tuple[str, ...]
    """Names that resolve to the address: container name, short id, aliases, hostname."""


class Endpoint(Message):
    """An interface of a running container."""

    network: NetworkId
    network_name: str
    address: str
    prefix_len: int
    mac: str
    gateway: str
    interface: str
    aliases: tuple[str, ...] = ()


class InterfaceWish(Message):
    """One network to join."""

    network: NetworkId
    network_name: str
    names: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    address: str | None = None


class PublishedPort(Message):
    """A host port that leads to a container."""

    host_address: str
    host_port: int
    protocol: str
    container_port: int


class AllocateInterface(Message):
    """Make the namespace and interfaces of one attempt of a container.

    Idempotent by (container, attempt): repeating it returns the same namespace and addresses.
    """

    container: ContainerId
    attempt: int
    networks: tuple[InterfaceWish, ...]
    """Empty: a namespace with only loopback (`--network none`)."""
    ports: tuple[PublishedPort, ...] = ()


class InterfaceReady(Message):
    """Where the namespace is and what is in it."""

    netns_path: str
    endpoints: tuple[Endpoint, ...]
    dns_servers: tuple[str, ...]
    sysfs_path: str = ""
    """A sysfs mounted in that namespace, to bind at /sys; empty if the kernel refused."""


class ReleaseInterface(Message):
    """Undo `AllocateInterface` of this attempt or an older one; unknown is success."""

    container: ContainerId
    attempt: int


class PublishPorts(Message):
    """Ask the fleet's entry to lead its own ports to a host's. Idempotent by (container, attempt)."""

    container: ContainerId
    attempt: int
    target: str
    """Underlay address of the host that runs the container."""
    ports: tuple[PublishedPort, ...]


class NetworkCheck(Message):
    """Findings of the network service for `labfleet fsck`: each names a leak or a lack."""

    findings: tuple[str, ...]


ALLOCATE_INTERFACE = JobKind("allocate_interface", "network", AllocateInterface, InterfaceReady)
"""Raises PortInUseError, NoRoomError (pool exhausted), ConflictError (address taken), NotFoundError (network)."""
RELEASE_INTERFACE = JobKind("release_interface", "network", ReleaseInterface, Nothing)
PUBLISH_PORTS = JobKind("publish_ports", "network", PublishPorts, Nothing)
"""Served by the entry (host id `entry`) only. Raises PortInUseError."""
UNPUBLISH_PORTS = JobKind("unpublish_ports", "network", ReleaseInterface, Nothing)
CHECK_NETWORK = JobKind("check_network", "network", Nothing, NetworkCheck, timeout_s=30.0)

ENTRY = HostId("entry")
"""Host id of the network service that owns the fleet's published ports on the entry machine."""
