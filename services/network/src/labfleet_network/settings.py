"""Settings of the network service, from `LABFLEET_NETWORK_*`."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from labfleet_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Which host this is, and how it reaches the others."""

    model_config = SettingsConfigDict(env_prefix="LABFLEET_NETWORK_", frozen=True, extra="ignore")

    host: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}$")
    """A host's id, or `entry`."""
    address: str = "127.0.0.1"
    """Underlay address: the tunnel end point."""
    underlay_interface: str = "eth0"
    underlay_subnet: str = "10.213.0.0/24"
    underlay_mtu: int = Field(default=1500, ge=1280, le=9000)
    tag: str = Field(default="lf", pattern=r"^[a-z0-9]{1,6}$")
    vxlan_port: int = Field(default=4789, ge=1, le=65_535)
    with_entry: bool = False
    """Whether published ports are led here from the fleet's entry."""
    pool_size: int = Field(default=64, ge=0, le=256)
    """At most so many ready network namespaces are kept."""
