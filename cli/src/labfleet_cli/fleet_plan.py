"""Everything that follows from a fleet's name: directories, ports, addresses, kernel names, processes.

Pure: the same name, hosts and facts give the same plan, so that two fleets live side by side and a
second `up` finds what the first one made.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from labfleet_cli.fleet_places import FLEETS_OF_UIDS, tag_of
from labfleet_proto.ids import OPERATORS
from labfleet_proto.tenants import fleet_secret

MOST_HOSTS = 12
UIDS_PER_SLOT = 65_536
UID_SLOTS = 256
FIRST_UID = 1_000_000
DEFAULT_PUBLISHED = range(40_000, 50_000)
"""Host ports for `-p 80` and `-P` of the default fleet."""
_FIRST_PUBLISHED = 50_000
_PUBLISHED = 1000
_MACHINE_RESERVE_BYTES = 2 << 30
_LEAST_SHARE_BYTES = 512 << 20


@dataclass(frozen=True)
class Choices:
    """What the operator chose; kept in `fleet.json`. The rest follows."""

    name: str
    hosts: int
    port_base: int
    underlay: int
    """Third octet of the underlay 10.213.N.0/24."""
    tcp: str
    """`address:port` of the api's listener without TLS, loopback only; empty for none."""
    score: str
    nats_token: str
    data_key: str
    labels: tuple[str, ...] = ()
    """`host.key=value`."""
    tls: str = ""
    """`address:port` of the api's listener with TLS; empty for none."""
    tls_names: tuple[str, ...] = ()
    """Names and addresses by which clients call it, besides that of the machine."""


@dataclass(frozen=True)
class Child:
    """One supervised process."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(hash=False)
    namespace: str | None = None
    """Network namespace to start in."""


@dataclass(frozen=True)
class VirtualHost:
    """A host on this machine: a network namespace, directories, a share of everything."""

    id: str
    number: int
    namespace: str
    link: str
    """Machine's end of its cable."""
    address: str
    mac: str
    uid_base: int
    cgroup_parent: str


@dataclass(frozen=True)
class FleetPlan:
    """The whole fleet."""

    choices: Choices
    total_memory_bytes: int

    @property
    def name(self) -> str:
        """Name of the fleet."""
        return self.choices.name

    @property
    def state_dir(self) -> Path:
        """What survives a reboot."""
        return Path("/var/lib") / self.name

    @property
    def run_dir(self) -> Path:
        """What goes with a reboot."""
        return Path("/run") / self.name

    @property
    def tag(self) -> str:
        """Prefix of kernel names."""
        return tag_of(self.name)

    @property
    def bridge(self) -> str:
        """Bridge of the underlay."""
        return f"{self.tag}br"

    @property
    def subnet(self) -> str:
        """Underlay network."""
        return f"10.213.{self.choices.underlay}.0/24"

    @property
    def gateway(self) -> str:
        """The machine's own underlay address."""
        return f"10.213.{self.choices.underlay}.1"

    @property
    def nats_url(self) -> str:
        """Where the bus is."""
        return f"nats://{self.gateway}:{self.choices.port_base}"

    @property
    def registry_port(self) -> int:
        """Port of the image store."""
        return self.choices.port_base + 2

    @property
    def registry(self) -> str:
        """Domain of the image store for people on this machine."""
        return f"127.0.0.1:{self.registry_port}"

    @property
    def fleet_secret(self) -> str:
        """Password of the fleet's own programs at the image store."""
        return fleet_secret(self.choices.data_key)

    @property
    def registry_url(self) -> str:
        """Where an operator's program reaches the image store, with its name and password."""
        return f"http://{OPERATORS}:{self.fleet_secret}@{self.registry}"

    @property
    def tls_dir(self) -> Path:
        """The fleet's certificate authority and the api's certificate."""
        return self.state_dir / "tls"

    @property
    def socket(self) -> Path:
        """Socket of the Docker API."""
        return self.run_dir / "docker.sock"

    @property
    def hosts(self) -> tuple[VirtualHost, ...]:
        """The virtual hosts."""
        n = self.choices.underlay
        first = FIRST_UID + n % FLEETS_OF_UIDS * MOST_HOSTS * UID_SLOTS * UIDS_PER_SLOT
        return tuple(
            VirtualHost(
                id=f"host{number}",
                number=number,
                namespace=f"{self.tag}-host{number}",
                link=f"{self.tag}h{number}",
                address=f"10.213.{n}.{10 + number}",
                mac=f"02:6c:66:{n:02x}:00:{number:02x}",
                uid_base=first + (number - 1) * UID_SLOTS * UIDS_PER_SLOT,
                cgroup_parent=f"{self.name}/host{number}",
            )
            for number in range(1, self.choices.hosts + 1)
        )

    @property
    def published(self) -> range:
        """Host ports for `-p 80` and `-P`: no other fleet of the machine gives them out."""
        if self.choices.underlay == 0:
            return DEFAULT_PUBLISHED
        first = _FIRST_PUBLISHED + self.choices.underlay % FLEETS_OF_UIDS * _PUBLISHED
        return range(first, first + _PUBLISHED)

    @property
    def memory_share_bytes(self) -> int:
        """What each virtual host may give away."""
        share = (self.total_memory_bytes - _MACHINE_RESERVE_BYTES) // self.choices.hosts
        return max(share, _LEAST_SHARE_BYTES)

    def children(self) -> tuple[Child, ...]:
        """All processes, in the order of their start."""
        base = self.choices.port_base
        bin_dir = Path(sys.executable).parent
        nats = Child(
            "nats", (str(bin_dir / "nats-server"), "-c", str(self.state_dir / "nats.conf")), {}
        )
        central = [
            self._child(
                "scheduler",
                base + 11,
                {
                    "SCORE": self.choices.score,
                    "PORT_FIRST": str(self.published.start),
                    "PORT_LAST": str(self.published.stop - 1),
                },
            ),
            self._child(
                "image-store",
                base + 12,
                {
                    "STATE_DIR": str(self.state_dir / "images"),
                    "FLEET_SECRET": self.fleet_secret,
                    "DATA_KEY": self.choices.data_key,
                    "DATA_ADDRESS": self.gateway,
                    "DATA_PORT": str(base + 3),
                    "LISTEN": f"{self.registry},{self.gateway}:{self.registry_port}",
                    "REGISTRY": ",".join(
                        f"{name}:{self.registry_port}"
                        for name in ("127.0.0.1", "localhost", self.gateway)
                    ),
                },
            ),
            self._child("api", base + 10, self._api_settings()),
            self._child(
                "network",
                base + 13,
                {
                    "HOST": "entry",
                    "ADDRESS": self.gateway,
                    "UNDERLAY_INTERFACE": self.bridge,
                    "UNDERLAY_SUBNET": self.subnet,
                    "TAG": self.tag,
                    "RUN_DIR": str(self.run_dir / "entry"),
                },
                name="network-entry",
            ),
        ]
        hosts = [child for host in self.hosts for child in self._host_children(host)]
        return (nats, *hosts, *central)

    def _api_settings(self) -> dict[str, str]:
        settings = {
            "SOCKET": str(self.socket),
            "DATA_KEY": self.choices.data_key,
            "REGISTRY": self.registry,
            "IMAGE_STORE": f"{self.gateway}:{self.choices.port_base + 3}",
        }
        if self.choices.tcp:
            address, _, port = self.choices.tcp.rpartition(":")
            settings |= {"TCP_ADDRESS": address, "TCP_PORT": port}
        if self.choices.tls:
            address, _, port = self.choices.tls.rpartition(":")
            settings |= {"TLS_ADDRESS": address, "TLS_PORT": port, "TLS_DIR": str(self.tls_dir)}
        return settings

    def _host_children(self, host: VirtualHost) -> tuple[Child, Child]:
        base = self.choices.port_base
        directories = {
            "STATE_DIR": str(self.state_dir / "hosts" / host.id),
            "RUN_DIR": str(self.run_dir / "hosts" / host.id),
            "HOST": host.id,
            "ADDRESS": host.address,
            "METRICS_ADDRESS": host.address,
        }
        labels = dict(
            text.partition(".")[2].split("=", 1)
            for text in self.choices.labels
            if text.startswith(f"{host.id}.")
        )
        network = self._child(
            "network",
            base + 21,
            {
                **directories,
                "UNDERLAY_INTERFACE": "eth0",
                "UNDERLAY_SUBNET": self.subnet,
                "TAG": self.tag,
                "WITH_ENTRY": "true",
            },
            name=f"network-{host.id}",
            namespace=host.namespace,
        )
        agent = self._child(
            "runtime-agent",
            base + 20,
            {
                **directories,
                "DATA_PORT": str(base + 40),
                "DATA_KEY": self.choices.data_key,
                "FLEET_SECRET": self.fleet_secret,
                "REGISTRY_URL": f"http://{self.gateway}:{self.registry_port}",
                "MEMORY_BYTES": str(self.memory_share_bytes),
                "RESERVE_MEMORY_BYTES": "0",
                "RESERVE_CPUS": "0",
                "LABELS": json.dumps(labels, sort_keys=True),
                "UID_BASE": str(host.uid_base),
                "UID_SLOTS": str(UID_SLOTS),
                "CGROUP_PARENT": host.cgroup_parent,
            },
            name=f"runtime-agent-{host.id}",
            namespace=host.namespace,
        )
        return network, agent

    def _child(
        self,
        service: str,
        metrics_port: int,
        settings: dict[str, str],
        *,
        name: str | None = None,
        namespace: str | None = None,
    ) -> Child:
        prefix = f"LABFLEET_{service.upper().replace('-', '_')}_"
        every = {
            "FLEET": self.name,
            "NATS_URL": self.nats_url,
            "NATS_TOKEN": self.choices.nats_token,
            "STATE_DIR": str(self.state_dir),
            "RUN_DIR": str(self.run_dir),
            "METRICS_PORT": str(metrics_port),
            **settings,
        }
        module = f"labfleet_{service.replace('-', '_')}"
        return Child(
            name or service,
            (sys.executable, "-m", module),
            {prefix + key: value for key, value in every.items()},
            namespace,
        )

    def expected(self) -> frozenset[tuple[str, str | None]]:
        """Service and host of every instance that must answer pings."""
        central: set[tuple[str, str | None]] = {
            ("api", None),
            ("scheduler", None),
            ("image-store", None),
            ("network", "entry"),
        }
        hosts = {(s, host.id) for host in self.hosts for s in ("runtime-agent", "network")}
        return frozenset(central | hosts)

    def nats_config(self) -> str:
        """Configuration of nats-server: every acknowledged write is on the disk."""
        base = self.choices.port_base
        return f"""server_name: {self.name}
listen: "{self.gateway}:{base}"
http: "127.0.0.1:{base + 1}"
authorization {{ token: "{self.choices.nats_token}" }}
jetstream {{
  store_dir: "{self.state_dir / "nats"}"
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: 8GB
}}
"""
