"""Settings of the runtime agent, from `LABFLEET_RUNTIME_AGENT_*`."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from labfleet_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What this host is and may give away."""

    model_config = SettingsConfigDict(
        env_prefix="LABFLEET_RUNTIME_AGENT_", frozen=True, extra="ignore"
    )

    host: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")
    address: str = "127.0.0.1"
    """Underlay address; the data port listens there."""
    data_port: int = Field(default=7450, ge=0, le=65_535)
    data_key: SecretStr
    """Hex; signs the tickets of the data port."""
    registry_url: str = "http://127.0.0.1:7402"
    fleet_secret: SecretStr = SecretStr("")
    """Password of the fleet's own services at the image store."""
    memory_bytes: int = Field(default=0, ge=0)
    """Share of the machine's memory; 0 means all of it."""
    cpus: float = Field(default=0, ge=0)
    """Share of the machine's cores; 0 means all of them."""
    cpu_overcommit: float = Field(default=32, gt=0)
    """CPU limits may add up to this many times the cores: labs are idle most of the time."""
    reserve_memory_bytes: int = Field(default=2 << 30, ge=0)
    reserve_cpus: float = Field(default=1, ge=0)
    most_containers: int = Field(default=250, gt=0)
    labels: dict[str, str] = {}
    uid_base: int = Field(default=1_000_000, ge=65_536)
    uid_slots: int = Field(default=256, gt=0, le=16_000)
    cgroup_parent: str = "labfleet/host1"
    """Below each controller's mount point."""
    runtime: str = "/usr/bin/crun"
    start_limit_s: float = Field(default=60, gt=0)
    """How long a start may be retried while a part of it is unavailable."""
    layers_high_percent: float = Field(default=85, gt=0, le=100)
    """Above so much use of the disk below `state_dir`, layers that nothing uses go."""
    layers_low_percent: float = Field(default=75, gt=0, le=100)
    """They go until the disk's use is below this."""
    layers_check_s: float = Field(default=20, gt=0)
    """How often the disk is looked at, and the last use of layers written down."""
    blob_cache_bytes: int = Field(default=8 << 30, ge=0)
    """Compressed layers kept for other hosts, at most so many bytes; 0 serves none."""
    peer_uploads: int = Field(default=8, ge=0)
    """At most so many layers are sent to other hosts at once."""
    peer_silence_s: float = Field(default=5, gt=0)
    """A host that sends a layer and says nothing for so long is left for another source."""
