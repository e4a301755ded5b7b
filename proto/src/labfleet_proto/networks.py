"""Networks, addresses and what agents ask of the network service on their host."""

from labfleet_proto.ids import ContainerId, HostId, NetworkId, TenantId
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message, Nothing

ADDRESS_POOL = "10.100.0.0/14"
"""All networks of a fleet take their addresses from here; none of them may leave a host unmasked."""

DEFAULT_NETWORK = "bridge"
"""Name of the tenant's own default network; made when it is first needed."""


class AddressPool(Message):
    """Addresses of a network beside its IPv4 ones."""

    subnet: str
    """CIDR."""
    gateway: str
    ip_range: str = ""
    """CIDR within `subnet` from which addresses are given; empty: the whole subnet."""
    aux_addresses: dict[str, str] = {}
    """Addresses that are given to nobody, by name."""


class NetworkRecord(Message):
    """Value of bucket `networks`, key `<network id>`; created and removed by the api."""

    id: NetworkId
    tenant: TenantId
    name: str
    vni: int
    """VXLAN network identifier, 24 bits (RFC 7348); unique in the fleet."""
    subnet: str
    """CIDR. No two networks of a tenant overlap; without `transit` no two of the fleet."""
    gateway: str
    """First address by default; the same on every host, and the DNS server's."""
    is_internal: bool = False
    """No way out of the network."""
    labels: dict[str, str] = {}
    created_at_ns: int
    transit: str = ""
    """A /24 of the pool behind which a subnet of the client's own choice hides on each host: the
    hosts never route that subnet, so it may be any, also another tenant's. Empty: of the pool itself."""
    ip_range: str = ""
    """CIDR within `subnet` from which addresses are given; empty: the whole subnet."""
    aux_addresses: dict[str, str] = {}
    """Addresses that are given to nobody, by name."""
    driver: str = "bridge"
    """As the client asked; all mean the same."""
    options: dict[str, str] = {}
    ipam_options: dict[str, str] = {}
    is_attachable: bool = False
    ipv6: AddressPool | None = None
    has_ipv6: bool = False
    """Whether containers get addresses of `ipv6`; there is a router (`transit`) then. Else it is only kept."""


class NetworkNameRecord(Message):
    """Value of bucket `network_names`, key `<tenant>.<name>`; create-only, so names are unique."""

    id: NetworkId


class SubnetClaim(Message):
    """Value of bucket `subnets`, key `vni.<vni>` or `net.<address>-<prefix>`; create-only."""

    network: NetworkId


class AddressRecord(Message):
    """Value of bucket `addresses`, key `<network id>.<ip>`; created by the network service of the host.

    An interface in a network with IPv6 has two, with the same MAC. They are everything that DNS, forwarding
    and neighbour entries of the other hosts need.
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
    """Number of the container's run (`Observation.run`)."""
    names: tuple[str, ...]
    """Names that resolve to the address: container name, short id, aliases, hostname."""
    interface: str = ""
    """Name inside the container, such as `eth0`."""
    links: dict[str, str] = {}
    """Names that only the holder of this address knows, and the name in the network that each means."""
    link_local: tuple[str, ...] = ()
    """More addresses of the interface, of 169.254.0.0/16."""


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
    address6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""


class UserIds(Message):
    """A range of the host's user ids; inside a container they are 0 and up."""

    first: int
    count: int


class InterfaceWish(Message):
    """One network to join."""

    network: NetworkId
    network_name: str
    names: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    address: str | None = None
    mac: str | None = None
    links: dict[str, str] = {}
    link_local: tuple[str, ...] = ()
    gateway_priority: int = 0
    """The network of the greatest is the container's way out; of equal ones the first."""
    address6: str | None = None


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
    """Number of the container's run (`Observation.run`)."""
    networks: tuple[InterfaceWish, ...]
    """Empty: a namespace with only loopback (`--network none`)."""
    ports: tuple[PublishedPort, ...] = ()
    sysctls: dict[str, str] = {}
    """Settings `net.*` of the namespace, which is not the container's own to change."""
    shares: ContainerId | None = None
    """Take the namespace of this container of the same tenant, which must run here; `networks` is empty."""
    owner: UserIds | None = None
    """Whose the namespace is: that of a user namespace of these ids, so that the container's capabilities
    hold in it, and only there. None: the host's."""


class InterfaceReady(Message):
    """Where the namespace is and what is in it."""

    netns_path: str
    endpoints: tuple[Endpoint, ...]
    dns_servers: tuple[str, ...]
    sysfs_path: str = ""
    """A sysfs mounted in that namespace, to bind at /sys; empty if the kernel refused."""
    owner: UserIds | None = None
    """Whose the namespace is, where that was asked for."""


class PrepareNamespaces(Message):
    """Have a namespace ready for each of these owners: it is their turn next.

    Only a matter of speed: who has none ready when it is asked for makes it then. Repeating is harmless.
    """

    owners: tuple[UserIds, ...]


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
CHANGE_INTERFACES = JobKind("change_interfaces", "network", AllocateInterface, InterfaceReady)
"""Make the interfaces of an attempt that has its namespace equal to the wishes. Raises as `allocate_interface`."""
RELEASE_INTERFACE = JobKind("release_interface", "network", ReleaseInterface, Nothing)
PREPARE_NAMESPACES = JobKind("prepare_namespaces", "network", PrepareNamespaces, Nothing)
PUBLISH_PORTS = JobKind("publish_ports", "network", PublishPorts, Nothing)
"""Served by the entry (host id `entry`) only. Raises PortInUseError."""
UNPUBLISH_PORTS = JobKind("unpublish_ports", "network", ReleaseInterface, Nothing)
CHECK_NETWORK = JobKind("check_network", "network", Nothing, NetworkCheck, timeout_s=30.0)

ENTRY = HostId("entry")
"""Host id of the network service that owns the fleet's published ports on the entry machine."""
